#include "wcifs.h"
#include "streams.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIRECTORY_SUFFIX L".$wcidirs$"
static const WCHAR LIST[] = L"placeholders.txt";

typedef struct {
  WCHAR **names;
  size_t count;
} Names;

static bool contains(const Names *names, const WCHAR *name) {
  for (size_t at = 0; at < names->count; at++)
    if (_wcsicmp(names->names[at], name) == 0) return true;
  return false;
}

static void add(Names *names, const WCHAR *name) {
  if (contains(names, name)) return;
  names->names = realloc(names->names, (names->count + 1) * sizeof *names->names);
  names->names[names->count++] = copy_text(name);
}

static void release(Names *names) {
  for (size_t at = 0; at < names->count; at++) free(names->names[at]);
  free(names->names);
}

static Names list(const WCHAR *directory) {
  Names names = {0};
  WIN32_FIND_DATAW entry;
  WCHAR *pattern = join_path(directory, L"*");
  HANDLE search = FindFirstFileW(pattern, &entry);
  free(pattern);
  if (search == INVALID_HANDLE_VALUE) return names;
  do
    if (wcscmp(entry.cFileName, L".") != 0 && wcscmp(entry.cFileName, L"..") != 0) add(&names, entry.cFileName);
  while (FindNextFileW(search, &entry));
  FindClose(search);
  return names;
}

static bool exists(const WCHAR *path) {
  return is_file(path) || is_directory(path);
}

/* --- placeholders: lines of a file's identity and its path below the layer --- */

static void identify(const WCHAR *path, const WCHAR *relative, WCHAR *line, size_t units) {
  BY_HANDLE_FILE_INFORMATION information = {0};
  HANDLE file = open_for_streams(path, 0, OPEN_EXISTING);
  if (file != INVALID_HANDLE_VALUE) {
    GetFileInformationByHandle(file, &information);
    CloseHandle(file);
  }
  swprintf(line, units, L"\n%08lx%08lx %ls\n", information.nFileIndexHigh, information.nFileIndexLow, relative);
}

static WCHAR *read_placeholders(const WCHAR *layer) {
  WCHAR *file = join_path(layer, LIST);
  size_t size = 0;
  uint8_t *text = read_whole(file, &size);
  free(file);
  WCHAR *lines = allocate(size + sizeof *lines);
  if (text != NULL) memcpy(lines, text, size);
  lines[text == NULL ? 0 : size / sizeof *lines] = 0;
  free(text);
  return lines;
}

static bool is_placeholder(const WCHAR *placeholders, const WCHAR *layer, const WCHAR *relative) {
  WCHAR line[2048], *path = join_path(layer, relative);
  identify(path, relative, line, 2048);
  free(path);
  return wcsstr(placeholders, line) != NULL;
}

typedef enum { BELOW, GONE, REAL } Place;

/* Whether a directory is the layer's own, or what those below have shows there, or nothing does. */
static Place place_of(const WCHAR *layer, const WCHAR *placeholders, const WCHAR *relative) {
  Place place = REAL;
  WCHAR *part = copy_text(relative);
  for (WCHAR *end = wcschr(part, '\\'); place == REAL; end = wcschr(end + 1, '\\')) {
    if (end != NULL) *end = 0;
    WCHAR *path = join_path(layer, part);
    if (is_placeholder(placeholders, layer, part)) place = BELOW;
    else if (!is_directory(path)) place = GONE;
    free(path);
    if (end == NULL) break;
    *end = '\\';
  }
  free(part);
  return place;
}

/* What the layers below list in a directory; false when it isn't there. */
static bool list_below(WCHAR *const *parents, uint32_t count, const WCHAR *relative, Names *names) {
  for (uint32_t at = 0; at < count; at++) {
    WCHAR *placeholders = read_placeholders(parents[at]);
    Place place = place_of(parents[at], placeholders, relative);
    free(placeholders);
    if (place == BELOW) continue;
    if (place == GONE) return false;
    WCHAR *directory = join_path(parents[at], relative);
    *names = list(directory);
    free(directory);
    return true;
  }
  return false;
}

/* --- import --- */

typedef struct {
  const WCHAR *layer, *source;
  WCHAR *const *parents;
  uint32_t count;
  Buffer placeholders;
} Import;

/* A file of the source: attributes, then backup streams. */
static DWORD restore_from(const WCHAR *source, const WCHAR *target, DWORD disposition) {
  size_t size = 0;
  uint8_t *bytes = read_whole(source, &size);
  if (bytes == NULL || size < 4) {
    free(bytes);
    return ERROR_INVALID_DATA;
  }
  HANDLE file = open_for_streams(target, GENERIC_READ | GENERIC_WRITE, disposition);
  HANDLE from = open_for_streams(source, GENERIC_READ, OPEN_EXISTING);
  FILETIME created, accessed, written;
  DWORD error = file == INVALID_HANDLE_VALUE ? GetLastError() : restore_streams(file, bytes + 4, size - 4);
  if (error == 0 && GetFileTime(from, &created, &accessed, &written)) SetFileTime(file, &created, &accessed, &written);
  if (file != INVALID_HANDLE_VALUE) CloseHandle(file);
  CloseHandle(from);
  free(bytes);
  return error;
}

static void add_placeholders(Import *import, const WCHAR *relative, const WCHAR *target) {
  Names below = {0};
  if (!list_below(import->parents, import->count, relative, &below)) return;
  for (size_t at = 0; at < below.count; at++) {
    WCHAR *path = join_path(target, below.names[at]), *child = join_path(relative, below.names[at]);
    WCHAR line[2048];
    bool directory = false;
    if (!exists(path)) {
      for (uint32_t parent = 0; parent < import->count; parent++) {
        WCHAR *lower = join_path(import->parents[parent], child);
        bool there = exists(lower);
        directory = is_directory(lower);
        free(lower);
        if (there) break;
      }
      if (directory) CreateDirectoryW(path, NULL);
      else write_whole(path, "", 0);
      identify(path, child, line, 2048);
      put_bytes(&import->placeholders, line, wcslen(line) * sizeof *line);
    }
    free(path);
    free(child);
  }
  release(&below);
}

static DWORD import_directory(Import *import, const WCHAR *relative) {
  WCHAR *source = join_path(import->source, relative), *target = join_path(import->layer, relative);
  size_t length = wcslen(source) + wcslen(DIRECTORY_SUFFIX) + 1;
  WCHAR *description = allocate(length * sizeof *description);
  wcscat(wcscpy(description, source), DIRECTORY_SUFFIX);
  DWORD error = !is_file(description)            ? ERROR_INVALID_DATA
                : !make_directories(target)      ? GetLastError()
                                                 : restore_from(description, target, OPEN_EXISTING);
  Names names = list(source);
  for (size_t at = 0; error == 0 && at < names.count; at++) {
    const WCHAR *name = names.names[at];
    const WCHAR *suffix = wcsstr(name, DIRECTORY_SUFFIX);
    if (suffix != NULL && suffix[wcslen(DIRECTORY_SUFFIX)] == 0) continue;
    WCHAR *child = join_path(relative, name), *from = join_path(source, name), *to = join_path(target, name);
    error = is_directory(from) ? import_directory(import, child) : restore_from(from, to, CREATE_NEW);
    free(child);
    free(from);
    free(to);
  }
  if (error == 0) add_placeholders(import, relative, target);
  release(&names);
  free(description);
  free(source);
  free(target);
  return error;
}

DWORD import_over(const WCHAR *layer, const WCHAR *source, WCHAR *const *parents, uint32_t count) {
  Import import = {layer, source, parents, count, {0}};
  DWORD error = import_directory(&import, L"Files");
  WCHAR *file = join_path(layer, LIST);
  if (error == 0 && !write_whole(file, import.placeholders.text, import.placeholders.length)) error = GetLastError();
  free(file);
  free(import.placeholders.text);
  return error;
}

/* --- export --- */

typedef struct {
  const WCHAR *layer, *target;
  WCHAR *const *parents;
  uint32_t count;
  WCHAR *placeholders;
  Buffer tombstones;
} Export;

static DWORD back_up_to(const WCHAR *source, const WCHAR *target) {
  HANDLE file = open_for_streams(source, GENERIC_READ, OPEN_EXISTING);
  if (file == INVALID_HANDLE_VALUE) return GetLastError();
  DWORD attributes = GetFileAttributesW(source);
  FILETIME created, accessed, written;
  Buffer bytes = {0};
  put_bytes(&bytes, &attributes, 4);
  GetFileTime(file, &created, &accessed, &written);
  DWORD error = backup_streams(file, &bytes);
  CloseHandle(file);
  if (error == 0 && !write_whole(target, bytes.text, bytes.length)) error = GetLastError();
  free(bytes.text);
  HANDLE out = open_for_streams(target, GENERIC_WRITE, OPEN_EXISTING);
  SetFileTime(out, &created, &accessed, &written);
  CloseHandle(out);
  return error;
}

static void put_tombstone(Export *export, const WCHAR *relative) {
  char text[4096];
  WideCharToMultiByte(CP_UTF8, 0, relative + wcslen(L"Files"), -1, text, sizeof text, NULL, NULL);
  put_text(&export->tombstones, text);
  put_text(&export->tombstones, "\r\n");
}

static DWORD export_directory(Export *export, const WCHAR *relative) {
  WCHAR *source = join_path(export->layer, relative), *target = join_path(export->target, relative);
  size_t length = wcslen(target) + wcslen(DIRECTORY_SUFFIX) + 1;
  WCHAR *description = allocate(length * sizeof *description);
  wcscat(wcscpy(description, target), DIRECTORY_SUFFIX);
  DWORD error = make_directories(target) ? back_up_to(source, description) : GetLastError();
  Names names = list(source), below = {0};
  list_below(export->parents, export->count, relative, &below);
  for (size_t at = 0; at < below.count; at++) {
    WCHAR *child = join_path(relative, below.names[at]);
    if (!contains(&names, below.names[at])) put_tombstone(export, child);
    free(child);
  }
  for (size_t at = 0; error == 0 && at < names.count; at++) {
    WCHAR *child = join_path(relative, names.names[at]);
    if (!is_placeholder(export->placeholders, export->layer, child)) {
      WCHAR *from = join_path(source, names.names[at]), *to = join_path(target, names.names[at]);
      error = is_directory(from) ? export_directory(export, child) : back_up_to(from, to);
      free(from);
      free(to);
    }
    free(child);
  }
  release(&names);
  release(&below);
  free(description);
  free(source);
  free(target);
  return error;
}

DWORD export_over(const WCHAR *layer, const WCHAR *target, WCHAR *const *parents, uint32_t count) {
  Export export = {layer, target, parents, count, read_placeholders(layer), {0}};
  put_text(&export.tombstones, "\xef\xbb\xbfVersion 1.0\r\n");
  DWORD error = export_directory(&export, L"Files");
  WCHAR *file = join_path(target, L"tombstones.txt");
  if (error == 0 && !write_whole(file, export.tombstones.text, export.tombstones.length)) error = GetLastError();
  free(file);
  free(export.placeholders);
  free(export.tombstones.text);
  return error;
}

/* --- show --- */

static bool show_directory(const WCHAR *layer, const WCHAR *placeholders, const WCHAR *relative, const WCHAR *shown) {
  WCHAR *own = join_path(layer, relative);
  Names names = list(own), before = list(shown);
  bool done = make_directories(shown);
  for (size_t at = 0; at < before.count; at++) {
    WCHAR *path = join_path(shown, before.names[at]);
    if (!contains(&names, before.names[at])) done = remove_tree(path) && done;
    free(path);
  }
  for (size_t at = 0; at < names.count; at++) {
    WCHAR *child = join_path(relative, names.names[at]), *to = join_path(shown, names.names[at]);
    if (!is_placeholder(placeholders, layer, child)) {
      WCHAR *from = join_path(layer, child);
      if (is_file(to) || (is_directory(to) && !is_directory(from))) done = remove_tree(to) && done;
      done = (is_directory(from) ? show_directory(layer, placeholders, child, to) : CopyFileW(from, to, FALSE)) && done;
      free(from);
    }
    free(child);
    free(to);
  }
  release(&names);
  release(&before);
  free(own);
  return done;
}

bool show_over(const WCHAR *files, const WCHAR *shown) {
  WCHAR *layer = copy_text(files);
  *wcsrchr(layer, '\\') = 0;
  WCHAR *placeholders = read_placeholders(layer);
  bool done = show_directory(layer, placeholders, L"Files", shown);
  free(placeholders);
  free(layer);
  return done;
}
