#include "volume.h"
#include "wcifs.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATE L"C:\\doubles\\"

/* --- links of the system below: Wine 8 makes none, but its processes are Linux processes --- */

enum { SYSCALL_RMDIR = 84, SYSCALL_UNLINK = 87, SYSCALL_SYMLINK = 88, SYSCALL_READLINK = 89 };

static long system_call(long number, const void *first, const void *second, size_t third) {
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(first), "S"(second), "d"(third)
                   : "rcx", "r11", "memory");
  return result;
}

static bool unix_path(const WCHAR *path, char *text, size_t size) {
  char *(CDECL *unix_name)(const WCHAR *) =
      (void *)GetProcAddress(GetModuleHandleW(L"kernel32"), "wine_get_unix_file_name");
  WCHAR *above = copy_text(path), last_name[512];
  size_t length = wcslen(above);
  while (length > 3 && above[length - 1] == '\\') above[--length] = 0;
  /* The name itself may be a link, which must not be followed. */
  WCHAR *name = wcsrchr(above, '\\');
  bool found = false;
  if (name != NULL) {
    wcsncpy(last_name, name + 1, 511);
    last_name[511] = 0;
    *name = 0;
    /* "C:" alone would be the current directory. */
    if (name == above + 2) wcscat(above, L"\\");
    char *directory = unix_name(above);
    if (directory != NULL) {
      char last[1024];
      WideCharToMultiByte(CP_UTF8, 0, last_name, -1, last, sizeof last, NULL, NULL);
      found = (size_t)snprintf(text, size, "%s/%s", directory, last) < size;
      HeapFree(GetProcessHeap(), 0, directory);
    }
  }
  free(above);
  return found;
}

WCHAR *link_target(const WCHAR *path) {
  char name[4096], target[4096];
  if (!unix_path(path, name, sizeof name)) return NULL;
  long length = system_call(SYSCALL_READLINK, name, target, sizeof target - 1);
  if (length < 0) return NULL;
  target[length] = 0;
  WCHAR *found = allocate((length + 16) * sizeof *found);
  wcscpy(found, L"\\\\?\\unix");
  MultiByteToWideChar(CP_UTF8, 0, target, -1, found + wcslen(found), length + 1);
  for (WCHAR *at = found; *at; at++)
    if (*at == '/') *at = '\\';
  return found;
}

bool make_link(const WCHAR *path, const WCHAR *target) {
  char name[4096], to[4096];
  if (!unix_path(path, name, sizeof name) || !unix_path(target, to, sizeof to)) return false;
  long result = system_call(SYSCALL_SYMLINK, to, name, 0);
  SetLastError(result == 0 ? 0 : ERROR_ALREADY_EXISTS);
  return result == 0;
}

bool remove_link(const WCHAR *path) {
  char name[4096];
  return unix_path(path, name, sizeof name) && system_call(SYSCALL_UNLINK, name, NULL, 0) == 0;
}

/* Of directories: a file's come with its copy. */
static bool copy_times(const WCHAR *from, const WCHAR *to) {
  FILETIME created, accessed, written;
  HANDLE source = CreateFileW(from, FILE_READ_ATTRIBUTES, 7, NULL, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, NULL);
  HANDLE target = CreateFileW(to, FILE_WRITE_ATTRIBUTES, 7, NULL, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, NULL);
  bool copied = source != INVALID_HANDLE_VALUE && target != INVALID_HANDLE_VALUE &&
                GetFileTime(source, &created, &accessed, &written) && SetFileTime(target, &created, &accessed, &written);
  if (source != INVALID_HANDLE_VALUE) CloseHandle(source);
  if (target != INVALID_HANDLE_VALUE) CloseHandle(target);
  return copied;
}

bool copy_tree(const WCHAR *from, const WCHAR *to) {
  if (!is_directory(from)) return CopyFileW(from, to, FALSE);
  WIN32_FIND_DATAW entry;
  WCHAR *pattern = join_path(from, L"*");
  bool copied = make_directories(to);
  HANDLE search = FindFirstFileW(pattern, &entry);
  free(pattern);
  if (search == INVALID_HANDLE_VALUE) return copied;
  do {
    if (wcscmp(entry.cFileName, L".") == 0 || wcscmp(entry.cFileName, L"..") == 0) continue;
    WCHAR *source = join_path(from, entry.cFileName), *target = join_path(to, entry.cFileName);
    copied = copy_tree(source, target) && copied;
    free(source);
    free(target);
  } while (FindNextFileW(search, &entry));
  FindClose(search);
  return copied && copy_times(from, to);
}

/* --- volumes --- */

WCHAR *volume_directory(const GUID *volume) {
  WCHAR guid[39], name[64];
  guid_text(volume, guid);
  swprintf(name, 64, L"volume%ls", guid);
  return join_path(devices_directory(), name);
}

bool volume_in_path(const WCHAR *path, GUID *volume) {
  unsigned part[11];
  if (path == NULL || _wcsnicmp(path, L"\\\\?\\Volume{", 11) != 0) return false;
  if (swscanf(path + 11, L"%8x-%4x-%4x-%2x%2x-%2x%2x%2x%2x%2x%2x}", &part[0], &part[1], &part[2], &part[3], &part[4],
              &part[5], &part[6], &part[7], &part[8], &part[9], &part[10]) != 11)
    return false;
  volume->Data1 = part[0];
  volume->Data2 = (uint16_t)part[1];
  volume->Data3 = (uint16_t)part[2];
  for (int at = 0; at < 8; at++) volume->Data4[at] = (uint8_t)part[3 + at];
  return true;
}

static void drop_orphan(const GUID *volume, const WCHAR *directory);

bool is_volume(const GUID *volume) {
  WCHAR *directory = volume_directory(volume);
  drop_orphan(volume, directory);
  bool there = is_directory(directory);
  free(directory);
  return there;
}

WCHAR *volume_record(const WCHAR *kind, const GUID *volume, const WCHAR *suffix) {
  WCHAR guid[39], path[MAX_PATH];
  guid_text(volume, guid);
  swprintf(path, MAX_PATH, STATE L"%ls", kind);
  make_directories(path);
  swprintf(path, MAX_PATH, STATE L"%ls\\%ls%ls", kind, guid, suffix);
  return copy_text(path);
}

/* --- disks --- */

static const char DISK_MAGIC[] = "virtual disk double ";

bool read_disk(const WCHAR *file, Disk *disk) {
  uint8_t *text = read_whole(file, NULL);
  unsigned long long size, volume;
  bool read = text != NULL && strncmp((char *)text, DISK_MAGIC, strlen(DISK_MAGIC)) == 0 &&
              sscanf((char *)text + strlen(DISK_MAGIC), "%llu %llu", &size, &volume) == 2;
  if (read) *disk = (Disk){size, volume};
  else if (text != NULL) SetLastError(ERROR_FILE_CORRUPT);
  free(text);
  return read;
}

bool write_disk(const WCHAR *file, const Disk *disk) {
  char text[80];
  snprintf(text, sizeof text, "%s%llu %llu\n", DISK_MAGIC, (unsigned long long)disk->size,
           (unsigned long long)disk->volume);
  return write_whole(file, text, strlen(text));
}

/* An ID for bytes, the same in every process. */
static void hash_guid(const void *bytes, size_t count, GUID *guid) {
  uint64_t sums[2] = {14695981039346656037ull, 7};
  for (size_t at = 0; at < count; at++)
    for (int lane = 0; lane < 2; lane++) sums[lane] = (sums[lane] ^ ((const uint8_t *)bytes)[at]) * 1099511628211ull + lane;
  memcpy(guid, sums, sizeof *guid);
}

void name_guid(const WCHAR *name, GUID *guid) {
  WCHAR *lower = _wcslwr(copy_text(name));
  hash_guid(lower, wcslen(lower) * sizeof *lower, guid);
  free(lower);
}

/* A file's identity: stays when its folder is renamed, and a copy has another. False when there is no such file. */
static bool file_index(const WCHAR *file, uint64_t *index) {
  BY_HANDLE_FILE_INFORMATION information;
  DWORD shared = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
  HANDLE handle = CreateFileW(file, 0, shared, NULL, OPEN_EXISTING, 0, NULL);
  if (handle == INVALID_HANDLE_VALUE) return false;
  bool found = GetFileInformationByHandle(handle, &information);
  CloseHandle(handle);
  if (found) *index = (uint64_t)information.nFileIndexHigh << 32 | information.nFileIndexLow;
  return found;
}

void disk_volume(const WCHAR *file, GUID *volume) {
  uint64_t index;
  if (file_index(file, &index)) hash_guid(&index, sizeof index, volume);
  else name_guid(file, volume);
}

static WCHAR *contents_directory(const WCHAR *file) {
  uint64_t index = 0;
  WCHAR path[80];
  file_index(file, &index);
  swprintf(path, 80, STATE L"disks\\%016llx", (unsigned long long)index);
  return copy_text(path);
}

/* What was there under the name that the system gave the file is another, deleted disk's. */
bool create_disk(const WCHAR *file, const Disk *disk) {
  WCHAR merged[96];
  if (!write_disk(file, disk)) return false;
  WCHAR *contents = contents_directory(file);
  swprintf(merged, 96, L"%ls.merged", contents);
  bool empty = (!is_directory(contents) || remove_tree(contents)) && (!is_directory(merged) || remove_tree(merged));
  free(contents);
  return empty;
}

static bool is_running(DWORD process) {
  HANDLE handle = OpenProcess(SYNCHRONIZE, FALSE, process);
  bool running = handle != NULL && WaitForSingleObject(handle, 0) == WAIT_TIMEOUT;
  if (handle != NULL) CloseHandle(handle);
  return running;
}

/* Detaches what a process that is gone had attached for itself. */
static void drop_orphan(const GUID *volume, const WCHAR *directory) {
  WCHAR *owner = volume_record(L"owners", volume, L""), *record = volume_record(L"attached", volume, L"");
  size_t size;
  uint8_t *process = read_whole(owner, &size);
  if (process != NULL && size == sizeof(DWORD) && !is_running(*(DWORD *)process)) {
    remove_link(directory);
    DeleteFileW(record);
    DeleteFileW(owner);
  }
  free(process);
  free(owner);
  free(record);
}

DWORD attach_disk(const WCHAR *file, bool permanent) {
  Disk disk;
  GUID volume;
  if (!read_disk(file, &disk)) return GetLastError();
  if (disk.volume == 0) return ERROR_UNRECOGNIZED_VOLUME;
  disk_volume(file, &volume);
  if (is_volume(&volume)) return ERROR_SHARING_VIOLATION;
  WCHAR *entry = volume_directory(&volume), *contents = contents_directory(file);
  WCHAR *record = volume_record(L"attached", &volume, L""), *owner = volume_record(L"owners", &volume, L"");
  DWORD process = GetCurrentProcessId();
  bool attached = (permanent || write_whole(owner, &process, sizeof process)) && make_directories(contents) &&
                  make_link(entry, contents) && write_whole(record, file, wcslen(file) * sizeof *file);
  free(entry);
  free(contents);
  free(record);
  free(owner);
  return attached ? 0 : ERROR_NOT_READY;
}

DWORD detach_disk(const WCHAR *file) {
  GUID volume;
  disk_volume(file, &volume);
  if (!is_volume(&volume)) return ERROR_NOT_READY;
  if (has_filter(&volume)) return ERROR_SHARING_VIOLATION;
  WCHAR *entry = volume_directory(&volume), *record = volume_record(L"attached", &volume, L"");
  WCHAR *owner = volume_record(L"owners", &volume, L"");
  bool detached = remove_link(entry) && DeleteFileW(record);
  DeleteFileW(owner);
  free(entry);
  free(record);
  free(owner);
  return detached ? 0 : ERROR_BUSY;
}

WCHAR *disk_of_volume(const GUID *volume) {
  WCHAR *record = volume_record(L"attached", volume, L"");
  size_t size;
  uint8_t *text = read_whole(record, &size);
  free(record);
  if (text == NULL) return NULL;
  WCHAR *file = allocate(size + sizeof *file);
  memcpy(file, text, size);
  free(text);
  return file;
}

/* --- filters: the record has the type and the parents, one a line --- */

bool has_filter(const GUID *volume) {
  WCHAR *record = volume_record(L"filters", volume, L"");
  bool there = is_file(record);
  free(record);
  return there;
}

static bool show_contents(const GUID *volume, const WCHAR *directory) {
  WCHAR *entry = volume_directory(volume);
  bool shown = remove_link(entry) && make_link(entry, directory);
  free(entry);
  return shown;
}

DWORD attach_filter(const GUID *volume, const WCHAR *type, WCHAR **parents, uint32_t count) {
  if (!is_volume(volume)) return ERROR_NOT_READY;
  if (has_filter(volume)) return ERROR_ALREADY_EXISTS;
  if (count == 0) return ERROR_INVALID_PARAMETER;
  WCHAR *file = disk_of_volume(volume);
  if (file == NULL) return ERROR_INVALID_PARAMETER;
  for (uint32_t at = 0; at < count; at++)
    if (!is_directory(parents[at])) return ERROR_PATH_NOT_FOUND;
  /* What is written while the filter is attached stays in the merged directory, for this disk. */
  WCHAR *contents = contents_directory(file), *record = volume_record(L"filters", volume, L"");
  WCHAR merged[96];
  swprintf(merged, 96, L"%ls.merged", contents);
  bool made = true;
  if (!is_directory(merged)) {
    bool wcifs = wcscmp(type, L"WCIFS") == 0;
    for (uint32_t at = count; at-- > 0;) made = made && (wcifs ? show_over : copy_tree)(parents[at], merged);
    made = made && copy_tree(contents, merged);
  }
  Buffer text = {0};
  put_bytes(&text, type, wcslen(type) * sizeof *type);
  for (uint32_t at = 0; at < count; at++) {
    put_bytes(&text, L"\n", sizeof(WCHAR));
    put_bytes(&text, parents[at], wcslen(parents[at]) * sizeof(WCHAR));
  }
  made = made && write_whole(record, text.text, text.length) && show_contents(volume, merged);
  free(text.text);
  free(file);
  free(contents);
  free(record);
  return made ? 0 : ERROR_NOT_READY;
}

DWORD detach_filter(const GUID *volume, const WCHAR *type) {
  if (!has_filter(volume)) return ERROR_NOT_FOUND;
  WCHAR *record = volume_record(L"filters", volume, L""), *file = disk_of_volume(volume);
  size_t size;
  uint8_t *text = read_whole(record, &size);
  bool same = text != NULL && size >= wcslen(type) * sizeof *type && memcmp(text, type, wcslen(type) * sizeof *type) == 0;
  DWORD result = same && file != NULL ? 0 : ERROR_INVALID_PARAMETER;
  if (result == 0) {
    WCHAR *contents = contents_directory(file);
    if (!show_contents(volume, contents) || !DeleteFileW(record)) result = ERROR_BUSY;
    free(contents);
  }
  free(text);
  free(file);
  free(record);
  return result;
}

bool is_shown(const GUID *volume) {
  WCHAR guid[39];
  guid_text(volume, guid);
  WIN32_FIND_DATAW entry;
  HANDLE search = FindFirstFileW(STATE L"filters\\{*", &entry);
  bool shown = false;
  if (search == INVALID_HANDLE_VALUE) return false;
  do {
    WCHAR *record = join_path(STATE L"filters", entry.cFileName);
    size_t size;
    uint8_t *text = read_whole(record, &size);
    if (text != NULL) {
      WCHAR *lines = allocate(size + sizeof *lines);
      memcpy(lines, text, size);
      for (WCHAR *at = lines; *at; at++) *at = towlower(*at);
      shown = shown || wcsstr(lines, guid) != NULL;
      free(lines);
    }
    free(text);
    free(record);
  } while (FindNextFileW(search, &entry));
  FindClose(search);
  return shown;
}
