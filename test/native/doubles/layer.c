#include "layer.h"
#include "streams.h"
#include "wcifs.h"
#include <stdlib.h>
#include <string.h>

static bool has_privilege(HANDLE token, const WCHAR *name) {
  PRIVILEGE_SET wanted = {.PrivilegeCount = 1, .Control = PRIVILEGE_SET_ALL_NECESSARY};
  BOOL held = FALSE;
  if (!LookupPrivilegeValueW(NULL, name, &wanted.Privilege[0].Luid)) return false;
  return PrivilegeCheck(token, &wanted, &held) && held;
}

bool has_privileges(void) {
  HANDLE token;
  if (!OpenThreadToken(GetCurrentThread(), TOKEN_QUERY, FALSE, &token) &&
      !OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &token))
    return false;
  bool held = has_privilege(token, SE_BACKUP_NAME) && has_privilege(token, SE_RESTORE_NAME);
  CloseHandle(token);
  return held;
}

/* Strings only, with the two escapes that paths have. */
uint32_t json_texts(const WCHAR *json, const WCHAR *name, WCHAR **texts, uint32_t most) {
  uint32_t found = 0;
  WCHAR key[40];
  wcscat(wcscat(wcscpy(key, L"\""), name), L"\"");
  for (const WCHAR *at = wcsstr(json, key); at != NULL && found < most; at = wcsstr(at, key)) {
    at += wcslen(key);
    while (*at == ' ' || *at == ':') at++;
    if (*at++ != '"') continue;
    WCHAR *text = allocate((wcslen(at) + 1) * sizeof *text), *to = text;
    for (; *at && *at != '"'; at++) *to++ = *at == '\\' ? *++at : *at;
    texts[found++] = text;
  }
  return found;
}

static bool copy_part(const WCHAR *from, const WCHAR *to, const WCHAR *name) {
  WCHAR *source = join_path(from, name), *target = join_path(to, name);
  bool there = is_directory(source) || is_file(source);
  bool copied = !there || copy_tree(source, target);
  free(source);
  free(target);
  return copied;
}

/* What isn't below Files is the same on both sides. */
static DWORD begin_copy(const WCHAR *from, const WCHAR *to) {
  static const WCHAR *const PARTS[] = {L"Hives", L"UtilityVM"};
  if (from == NULL || to == NULL) return ERROR_INVALID_PARAMETER;
  if (ends_in_backslash(from) || ends_in_backslash(to)) return ERROR_INVALID_NAME;
  if (!has_privileges()) return ERROR_PRIVILEGE_NOT_HELD;
  if (!is_directory(from)) return ERROR_PATH_NOT_FOUND;
  if (!make_directories(to)) return GetLastError();
  for (size_t at = 0; at < sizeof PARTS / sizeof *PARTS; at++)
    if (!copy_part(from, to, PARTS[at])) return GetLastError();
  return 0;
}

DWORD import_layer(const WCHAR *layer, const WCHAR *source, WCHAR *const *parents, uint32_t count) {
  DWORD error = begin_copy(source, layer);
  return error == 0 ? import_over(layer, source, parents, count) : error;
}

DWORD export_layer(const WCHAR *layer, const WCHAR *target, WCHAR *const *parents, uint32_t count) {
  DWORD error = begin_copy(layer, target);
  return error == 0 ? export_over(layer, target, parents, count) : error;
}

static void forget_tree(const WCHAR *path) {
  WIN32_FIND_DATAW entry;
  forget_streams(path);
  if (!is_directory(path)) return;
  WCHAR *pattern = join_path(path, L"*");
  HANDLE search = FindFirstFileW(pattern, &entry);
  free(pattern);
  if (search == INVALID_HANDLE_VALUE) return;
  do {
    if (wcscmp(entry.cFileName, L".") == 0 || wcscmp(entry.cFileName, L"..") == 0) continue;
    WCHAR *child = join_path(path, entry.cFileName);
    forget_tree(child);
    free(child);
  } while (FindNextFileW(search, &entry));
  FindClose(search);
}

DWORD destroy_layer(const WCHAR *layer) {
  if (layer == NULL) return ERROR_INVALID_PARAMETER;
  if (ends_in_backslash(layer)) return ERROR_INVALID_NAME;
  if (!is_directory(layer)) return ERROR_PATH_NOT_FOUND;
  WCHAR *disk = join_path(layer, L"sandbox.vhdx");
  GUID volume;
  disk_volume(disk, &volume);
  free(disk);
  if (is_volume(&volume)) return ERROR_SHARING_VIOLATION;
  forget_tree(layer);
  return remove_tree(layer) ? 0 : ERROR_ACCESS_DENIED;
}

DWORD process_image(const WCHAR *layer, bool utility_vm) {
  static const uint64_t SIZE = 20ull << 30;
  if (!has_privileges()) return ERROR_PRIVILEGE_NOT_HELD;
  WCHAR *files = join_path(layer, L"Files");
  bool there = is_directory(files);
  free(files);
  if (!there) return ERROR_PATH_NOT_FOUND;
  const WCHAR *names[] = {utility_vm ? L"SystemTemplateBase.vhdx" : L"blank-base.vhdx",
                          utility_vm ? L"SystemTemplate.vhdx" : L"blank.vhdx"};
  for (int at = 0; at < 2; at++) {
    WCHAR *file = join_path(layer, names[at]);
    bool written = create_disk(file, &(Disk){SIZE, SIZE});
    free(file);
    if (!written) return GetLastError();
  }
  return 0;
}
