/*
 * The mount manager's side of kernel32, which Wine leaves undone: loading this DLL puts these functions in the place of
 * Wine's own, for the product's calls and for Node's. What they answer about drives is what a Windows machine with one
 * NTFS disk would say. Renames below the directory that CIMLET_DOUBLES_RENAMES names are logged, and can be struck, as
 * calls of doubles are.
 */
#include "backup.h"
#include "volume.h"
#include <stdlib.h>
#include <string.h>
#include <winioctl.h>

static const WCHAR DRIVES[] = L"CZ";
static const uint64_t SECTOR = 512, CLUSTER = 4096;

static BOOL result_of(Call *call, DWORD error) {
  error = leave(call, error);
  SetLastError(error);
  return error == 0;
}

static void volume_path(const GUID *volume, WCHAR *path) {
  WCHAR guid[39];
  guid_text(volume, guid);
  wcscat(wcscat(wcscpy(path, L"\\\\?\\Volume"), guid), L"\\");
}

static void drive_volume(WCHAR letter, GUID *volume) {
  const GUID drive = {0xd0000000, 0, 0, {0, 0, 0, 0, 0, 0, 0, (uint8_t)towlower(letter)}};
  *volume = drive;
}

/* The volume mounted at a directory, which may be a drive's root. */
static bool mounted_at(const WCHAR *path, GUID *volume) {
  WCHAR *target = link_target(path);
  WCHAR *name = target == NULL ? NULL : wcsstr(target, L"\\dosdevices\\volume{");
  bool found = false;
  if (name != NULL) {
    WCHAR text[64] = L"\\\\?\\Volume";
    wcsncat(text, name + wcslen(L"\\dosdevices\\volume"), 38);
    found = volume_in_path(text, volume);
  }
  free(target);
  if (!found && path[0] && wcscmp(path + 1, L":\\") == 0) {
    drive_volume(path[0], volume);
    found = is_directory(path);
  }
  return found;
}

/* Mount points are kept in a list as well: a volume is asked where it is mounted. */
static WCHAR *mount_record(const WCHAR *directory) {
  GUID guid;
  name_guid(directory, &guid);
  return volume_record(L"mountpoints", &guid, L"");
}

static DWORD set_mount_point(const WCHAR *directory, const WCHAR *volume) {
  GUID guid, other;
  if (directory == NULL || volume == NULL || !ends_in_backslash(directory)) return ERROR_INVALID_NAME;
  if (!ends_in_backslash(volume) || !volume_in_path(volume, &guid)) return ERROR_INVALID_NAME;
  if (!is_directory(directory)) return ERROR_PATH_NOT_FOUND;
  if (mounted_at(directory, &other)) return ERROR_DIR_NOT_EMPTY;
  if (!is_volume(&guid)) return ERROR_FILE_NOT_FOUND;
  if (!RemoveDirectoryW(directory)) return ERROR_DIR_NOT_EMPTY;
  WCHAR *entry = volume_directory(&guid), *record = mount_record(directory);
  bool made = write_whole(record, directory, wcslen(directory) * sizeof *directory) && make_link(directory, entry);
  free(entry);
  free(record);
  return made ? 0 : ERROR_ACCESS_DENIED;
}

static BOOL WINAPI set_volume_mount_point(const WCHAR *directory, const WCHAR *volume) {
  Call call;
  begin(&call, "SetVolumeMountPointW");
  arg_text(&call, "directory", directory);
  arg_text(&call, "volume", volume);
  if (!enter(&call)) return result_of(&call, call.failure);
  lock_world();
  DWORD error = set_mount_point(directory, volume);
  unlock_world();
  return result_of(&call, error);
}

static DWORD delete_mount_point(const WCHAR *directory) {
  GUID volume;
  if (directory == NULL || !ends_in_backslash(directory)) return ERROR_INVALID_NAME;
  if (!mounted_at(directory, &volume)) return ERROR_NOT_A_REPARSE_POINT;
  WCHAR *record = mount_record(directory);
  bool deleted = remove_link(directory) && CreateDirectoryW(directory, NULL);
  DeleteFileW(record);
  free(record);
  return deleted ? 0 : ERROR_ACCESS_DENIED;
}

static BOOL WINAPI delete_volume_mount_point(const WCHAR *directory) {
  Call call;
  begin(&call, "DeleteVolumeMountPointW");
  arg_text(&call, "directory", directory);
  if (!enter(&call)) return result_of(&call, call.failure);
  lock_world();
  DWORD error = delete_mount_point(directory);
  unlock_world();
  return result_of(&call, error);
}

static DWORD volume_name(const WCHAR *path, WCHAR *name, DWORD units) {
  GUID volume;
  if (path == NULL || !ends_in_backslash(path)) return ERROR_INVALID_NAME;
  if (units < 50) return ERROR_FILENAME_EXCED_RANGE;
  if (!is_directory(path)) return ERROR_FILE_NOT_FOUND;
  if (volume_in_path(path, &volume) ? !is_volume(&volume) : !mounted_at(path, &volume)) return ERROR_NOT_A_REPARSE_POINT;
  volume_path(&volume, name);
  return 0;
}

static BOOL WINAPI get_volume_name_for_mount_point(const WCHAR *path, WCHAR *name, DWORD units) {
  Call call;
  begin(&call, "GetVolumeNameForVolumeMountPointW");
  arg_text(&call, "path", path);
  if (!enter(&call)) return result_of(&call, call.failure);
  return result_of(&call, volume_name(path, name, units));
}

/* The longest part of the path that a volume is mounted at. */
static DWORD path_name(const WCHAR *path, WCHAR *root, DWORD units) {
  GUID volume;
  WCHAR full[2048];
  if (path == NULL || *path == 0) return ERROR_INVALID_NAME;
  if (volume_in_path(path, &volume)) volume_path(&volume, full);
  else if (GetFullPathNameW(path, 2047, full, NULL) == 0) return GetLastError();
  if (!volume_in_path(full, &volume)) {
    if (!ends_in_backslash(full)) wcscat(full, L"\\");
    while (!mounted_at(full, &volume)) {
      full[wcslen(full) - 1] = 0;
      WCHAR *end = wcsrchr(full, '\\');
      if (end == NULL) return ERROR_INVALID_NAME;
      end[1] = 0;
    }
  }
  if (wcslen(full) >= units) return ERROR_FILENAME_EXCED_RANGE;
  wcscpy(root, full);
  return 0;
}

static BOOL WINAPI get_volume_path_name(const WCHAR *path, WCHAR *root, DWORD units) {
  Call call;
  begin(&call, "GetVolumePathNameW");
  arg_text(&call, "path", path);
  if (!enter(&call)) return result_of(&call, call.failure);
  return result_of(&call, path_name(path, root, units));
}

typedef struct {
  WCHAR *text;
  uint32_t count, next;
} Names;

static void add_name(Names *names, const WCHAR *name) {
  size_t length = 0;
  for (uint32_t at = 0; at < names->count; at++) length += wcslen(names->text + length) + 1;
  names->text = realloc(names->text, (length + wcslen(name) + 2) * sizeof *name);
  wcscpy(names->text + length, name);
  names->text[length + wcslen(name) + 1] = 0;
  names->count++;
}

static size_t names_length(const Names *names) {
  size_t length = 0;
  for (uint32_t at = 0; at < names->count; at++) length += wcslen(names->text + length) + 1;
  return length + 1;
}

static void find_mount_points(const GUID *volume, Names *names) {
  GUID other;
  WCHAR root[] = L"?:\\";
  for (const WCHAR *letter = DRIVES; *letter; letter++) {
    root[0] = *letter;
    drive_volume(*letter, &other);
    if (memcmp(&other, volume, sizeof other) == 0) add_name(names, root);
  }
  WIN32_FIND_DATAW entry;
  HANDLE search = FindFirstFileW(L"C:\\doubles\\mountpoints\\{*", &entry);
  if (search == INVALID_HANDLE_VALUE) return;
  do {
    WCHAR *record = join_path(L"C:\\doubles\\mountpoints", entry.cFileName);
    size_t size;
    uint8_t *text = read_whole(record, &size);
    WCHAR *directory = text == NULL ? NULL : memcpy(allocate(size + sizeof(WCHAR)), text, size);
    if (directory != NULL && mounted_at(directory, &other) && memcmp(&other, volume, sizeof other) == 0)
      add_name(names, directory);
    free(directory);
    free(text);
    free(record);
  } while (FindNextFileW(search, &entry));
  FindClose(search);
}

static DWORD path_names(const WCHAR *path, WCHAR *buffer, DWORD units, DWORD *needed) {
  GUID volume;
  if (path == NULL || !ends_in_backslash(path) || !volume_in_path(path, &volume)) return ERROR_INVALID_NAME;
  if (!is_volume(&volume) && volume.Data1 != 0xd0000000) return ERROR_FILE_NOT_FOUND;
  Names names = {allocate(2 * sizeof(WCHAR)), 0, 0};
  find_mount_points(&volume, &names);
  size_t length = names_length(&names);
  if (needed != NULL) *needed = (DWORD)length;
  bool fits = length <= units && buffer != NULL;
  if (fits) memcpy(buffer, names.text, length * sizeof *buffer);
  free(names.text);
  return fits ? 0 : ERROR_MORE_DATA;
}

static BOOL WINAPI get_volume_path_names(const WCHAR *volume, WCHAR *buffer, DWORD units, DWORD *needed) {
  Call call;
  begin(&call, "GetVolumePathNamesForVolumeNameW");
  arg_text(&call, "volume", volume);
  if (!enter(&call)) return result_of(&call, call.failure);
  return result_of(&call, path_names(volume, buffer, units, needed));
}

static Names *all_volumes(void) {
  Names *names = allocate(sizeof *names);
  GUID volume;
  WCHAR path[64];
  names->text = allocate(2 * sizeof(WCHAR));
  for (const WCHAR *letter = DRIVES; *letter; letter++) {
    drive_volume(*letter, &volume);
    volume_path(&volume, path);
    add_name(names, path);
  }
  WIN32_FIND_DATAW entry;
  WCHAR *pattern = join_path(devices_directory(), L"volume{*");
  HANDLE search = FindFirstFileW(pattern, &entry);
  free(pattern);
  if (search == INVALID_HANDLE_VALUE) return names;
  do {
    wcscat(wcscat(wcscpy(path, L"\\\\?\\Volume"), entry.cFileName + 6), L"\\");
    add_name(names, path);
  } while (FindNextFileW(search, &entry));
  FindClose(search);
  return names;
}

static DWORD next_volume(Names *names, WCHAR *name, DWORD units) {
  if (names->next == names->count) return ERROR_NO_MORE_FILES;
  const WCHAR *text = names->text;
  for (uint32_t at = 0; at < names->next; at++) text += wcslen(text) + 1;
  if (wcslen(text) >= units) return ERROR_FILENAME_EXCED_RANGE;
  names->next++;
  wcscpy(name, text);
  return 0;
}

static HANDLE WINAPI find_first_volume(WCHAR *name, DWORD units) {
  Call call;
  begin(&call, "FindFirstVolumeW");
  if (!enter(&call)) return result_of(&call, call.failure) ? NULL : INVALID_HANDLE_VALUE;
  Names *names = all_volumes();
  bool found = result_of(&call, next_volume(names, name, units));
  return found ? names : INVALID_HANDLE_VALUE;
}

static BOOL WINAPI find_next_volume(HANDLE search, WCHAR *name, DWORD units) {
  Call call;
  begin(&call, "FindNextVolumeW");
  if (!enter(&call)) return result_of(&call, call.failure);
  return result_of(&call, next_volume(search, name, units));
}

static BOOL WINAPI find_volume_close(HANDLE search) {
  Call call;
  begin(&call, "FindVolumeClose");
  if (!enter(&call)) return result_of(&call, call.failure);
  free(((Names *)search)->text);
  free(search);
  return result_of(&call, 0);
}

/* "NTFS" unless C:\doubles\filesystem.txt names what drives are to have instead. */
static DWORD file_system(const WCHAR *root, WCHAR *name, DWORD units) {
  GUID volume;
  if (root == NULL || !ends_in_backslash(root)) return ERROR_INVALID_NAME;
  if (volume_in_path(root, &volume) ? !is_volume(&volume) : !mounted_at(root, &volume)) return ERROR_DIR_NOT_ROOT;
  WCHAR *record = volume_record(L"volumes", &volume, L".json");
  bool cim = is_file(record);
  free(record);
  size_t size = 0;
  char *told = cim || volume.Data1 != 0xd0000000 ? NULL : (char *)read_whole(L"C:\\doubles\\filesystem.txt", &size);
  MultiByteToWideChar(CP_UTF8, 0, cim ? "CimFS" : told == NULL ? "NTFS" : told, -1, name, (int)units);
  free(told);
  return 0;
}

static BOOL WINAPI get_volume_information(const WCHAR *root, WCHAR *label, DWORD label_units, DWORD *serial,
                                          DWORD *longest, DWORD *flags, WCHAR *name, DWORD units) {
  WCHAR found[32];
  Call call;
  begin(&call, "GetVolumeInformationW");
  arg_text(&call, "root", root);
  if (!enter(&call)) return result_of(&call, call.failure);
  DWORD error = file_system(root, found, 32);
  if (error != 0) return result_of(&call, error);
  if (label != NULL && label_units > 0) label[0] = 0;
  if (serial != NULL) *serial = 0x00c1d0b1;
  if (longest != NULL) *longest = 255;
  if (flags != NULL) *flags = FILE_SUPPORTS_REPARSE_POINTS | FILE_NAMED_STREAMS | FILE_PERSISTENT_ACLS | FILE_SUPPORTS_HARD_LINKS;
  if (name != NULL && wcslen(found) < units) wcscpy(name, found);
  return result_of(&call, 0);
}

/* --- a disk's volume, opened: its length and its growth --- */

static WCHAR *disk_of_handle(HANDLE handle) {
  WCHAR path[64];
  BY_HANDLE_FILE_INFORMATION own, other;
  if (!GetFileInformationByHandle(handle, &own)) return NULL;
  WIN32_FIND_DATAW entry;
  HANDLE search = FindFirstFileW(L"C:\\doubles\\attached\\{*", &entry);
  WCHAR *found = NULL;
  if (search == INVALID_HANDLE_VALUE) return NULL;
  do {
    wcscat(wcscat(wcscpy(path, L"\\\\?\\Volume"), entry.cFileName), L"\\");
    GUID volume;
    HANDLE root = CreateFileW(path, 0, 7, NULL, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, NULL);
    if (root == INVALID_HANDLE_VALUE) continue;
    bool same = GetFileInformationByHandle(root, &other) && own.nFileIndexLow == other.nFileIndexLow &&
                own.nFileIndexHigh == other.nFileIndexHigh;
    CloseHandle(root);
    if (same && volume_in_path(path, &volume)) found = disk_of_volume(&volume);
  } while (found == NULL && FindNextFileW(search, &entry));
  FindClose(search);
  return found;
}

static DWORD control_disk(HANDLE handle, DWORD code, void *in, DWORD in_size, void *out, DWORD out_size, DWORD *returned) {
  WCHAR *file = disk_of_handle(handle);
  Disk disk;
  DWORD error = 0;
  if (file == NULL || !read_disk(file, &disk)) error = ERROR_INVALID_FUNCTION;
  else if (code == IOCTL_DISK_GET_LENGTH_INFO && out_size < 8) error = ERROR_INSUFFICIENT_BUFFER;
  else if (code == IOCTL_DISK_GET_LENGTH_INFO) memcpy(out, &disk.size, 8);
  /* It only grows, and not beyond its disk. */
  else if (in_size < 8 || *(uint64_t *)in * SECTOR > disk.size || *(uint64_t *)in * SECTOR <= disk.volume)
    error = ERROR_INVALID_PARAMETER;
  else if (!write_disk(file, &(Disk){disk.size, *(uint64_t *)in * SECTOR})) error = GetLastError();
  if (returned != NULL) *returned = error == 0 && code == IOCTL_DISK_GET_LENGTH_INFO ? 8 : 0;
  free(file);
  return error;
}

typedef struct {
  union {
    LONG status;
    void *pointer;
  };
  ULONG_PTR information;
} StatusBlock;

typedef LONG(WINAPI *NtControl)(HANDLE, HANDLE, void *, void *, StatusBlock *, ULONG, void *, ULONG, void *, ULONG);

/* Every other code goes on to the system, as kernel32 would pass it; overlapped calls end with their event. */
static BOOL WINAPI device_io_control(HANDLE handle, DWORD code, void *in, DWORD in_size, void *out, DWORD out_size,
                                     DWORD *returned, OVERLAPPED *overlapped) {
  if (code == FSCTL_LOCK_VOLUME) {
    /* Nothing is open, unless a fault says so. */
    Call call;
    begin(&call, "FSCTL_LOCK_VOLUME");
    return result_of(&call, enter(&call) ? 0 : call.failure);
  }
  if (code == IOCTL_DISK_GET_LENGTH_INFO || code == FSCTL_EXTEND_VOLUME) {
    Call call;
    begin(&call, "DeviceIoControl");
    arg_number(&call, "code", code);
    if (code == FSCTL_EXTEND_VOLUME && in_size >= 8) arg_number(&call, "sectors", *(uint64_t *)in);
    if (!enter(&call)) return result_of(&call, call.failure);
    return result_of(&call, control_disk(handle, code, in, in_size, out, out_size, returned));
  }
  HMODULE ntdll = GetModuleHandleW(L"ntdll");
  bool file_system = code >> 16 == FILE_DEVICE_FILE_SYSTEM;
  NtControl control = (void *)GetProcAddress(ntdll, file_system ? "NtFsControlFile" : "NtDeviceIoControlFile");
  ULONG(WINAPI * to_error)(LONG) = (void *)GetProcAddress(ntdll, "RtlNtStatusToDosError");
  StatusBlock own = {0}, *block = overlapped == NULL ? &own : (StatusBlock *)overlapped;
  HANDLE event = overlapped == NULL ? NULL : overlapped->hEvent;
  void *context = overlapped != NULL && !((ULONG_PTR)event & 1) ? overlapped : NULL;
  LONG status = control(handle, event, NULL, context, block, code, in, in_size, out, out_size);
  if (status == STATUS_PENDING && overlapped == NULL) {
    WaitForSingleObject(handle, INFINITE);
    status = own.status;
  }
  if (returned != NULL) *returned = (DWORD)block->information;
  if (status != 0) SetLastError(to_error(status));
  return status >= 0 && status != STATUS_PENDING;
}

typedef LONG(WINAPI *NtVolumeInformation)(HANDLE, StatusBlock *, void *, ULONG, int);

typedef struct {
  LARGE_INTEGER total, available, free;
  ULONG sectors_per_unit, bytes_per_sector;
} FullSize;

static DWORD space_of_drive(const WCHAR *directory, uint64_t *available, uint64_t *total, uint64_t *unused) {
  NtVolumeInformation query = (void *)GetProcAddress(GetModuleHandleW(L"ntdll"), "NtQueryVolumeInformationFile");
  HANDLE handle = CreateFileW(directory, 0, 7, NULL, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, NULL);
  StatusBlock block;
  FullSize size;
  if (handle == INVALID_HANDLE_VALUE) return GetLastError();
  /* FileFsFullSizeInformation */
  LONG status = query(handle, &block, &size, sizeof size, 7);
  CloseHandle(handle);
  if (status != 0) return ERROR_NOT_SUPPORTED;
  uint64_t unit = (uint64_t)size.sectors_per_unit * size.bytes_per_sector;
  *available = size.available.QuadPart * unit;
  *total = size.total.QuadPart * unit;
  *unused = size.free.QuadPart * unit;
  return 0;
}

/* NTFS keeps one cluster of a disk's volume. */
static BOOL WINAPI get_disk_free_space(const WCHAR *directory, ULARGE_INTEGER *available, ULARGE_INTEGER *total,
                                       ULARGE_INTEGER *unused) {
  GUID volume;
  Disk disk;
  uint64_t space[3] = {0};
  WCHAR *file = volume_in_path(directory, &volume) ? disk_of_volume(&volume) : NULL;
  DWORD error = 0;
  if (file == NULL) error = space_of_drive(directory, &space[0], &space[1], &space[2]);
  else if (!read_disk(file, &disk)) error = GetLastError();
  else space[0] = space[1] = space[2] = disk.volume - CLUSTER;
  free(file);
  if (available != NULL) available->QuadPart = space[0];
  if (total != NULL) total->QuadPart = space[1];
  if (unused != NULL) unused->QuadPart = space[2];
  SetLastError(error);
  return error == 0;
}

/* --- renames --- */

typedef BOOL(WINAPI *MoveFileFlags)(const WCHAR *, const WCHAR *, DWORD);

/* What paths begin with whose renames count as calls. */
static WCHAR renames[MAX_PATH];

static bool are_counted(const WCHAR *path) {
  const WCHAR *plain = wcsncmp(path, L"\\\\?\\", 4) == 0 ? path + 4 : path;
  return _wcsnicmp(plain, renames, wcslen(renames)) == 0;
}

static BOOL WINAPI move_file(const WCHAR *from, const WCHAR *to, DWORD flags) {
  MoveFileFlags move = (MoveFileFlags)(void *)GetProcAddress(GetModuleHandleW(L"kernelbase"), "MoveFileExW");
  if (from == NULL || !are_counted(from)) return move(from, to, flags);
  Call call;
  begin(&call, "MoveFileExW");
  arg_text(&call, "from", from);
  arg_text(&call, "to", to);
  if (!enter(&call)) return result_of(&call, call.failure);
  return result_of(&call, move(from, to, flags) ? 0 : GetLastError());
}

/* --- in the place of Wine's own --- */

static void replace(const char *name, const void *with) {
  uint8_t *code = (void *)GetProcAddress(GetModuleHandleW(L"kernel32"), name);
  /* mov rax, with; jmp rax */
  uint8_t jump[12] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0};
  DWORD protection;
  memcpy(jump + 2, &with, sizeof with);
  if (code == NULL || !VirtualProtect(code, sizeof jump, PAGE_EXECUTE_READWRITE, &protection)) abort();
  memcpy(code, jump, sizeof jump);
  VirtualProtect(code, sizeof jump, protection, &protection);
  FlushInstructionCache(GetCurrentProcess(), code, sizeof jump);
}

BOOL WINAPI DllMain(HINSTANCE module, DWORD reason, void *reserved) {
  (void)module;
  (void)reserved;
  if (reason != DLL_PROCESS_ATTACH) return TRUE;
  replace("SetVolumeMountPointW", set_volume_mount_point);
  replace("DeleteVolumeMountPointW", delete_volume_mount_point);
  replace("GetVolumeNameForVolumeMountPointW", get_volume_name_for_mount_point);
  replace("GetVolumePathNameW", get_volume_path_name);
  replace("GetVolumePathNamesForVolumeNameW", get_volume_path_names);
  replace("FindFirstVolumeW", find_first_volume);
  replace("FindNextVolumeW", find_next_volume);
  replace("FindVolumeClose", find_volume_close);
  replace("GetVolumeInformationW", get_volume_information);
  replace("DeviceIoControl", device_io_control);
  replace("BackupRead", backup_read);
  replace("BackupWrite", backup_write);
  replace("GetDiskFreeSpaceExW", get_disk_free_space);
  if (GetEnvironmentVariableW(L"CIMLET_DOUBLES_RENAMES", renames, MAX_PATH) > 0) replace("MoveFileExW", move_file);
  return TRUE;
}

/* Lets Node load it as an addon, before anything else runs. */
void *napi_register_module_v1(void *environment, void *exports) {
  (void)environment;
  return exports;
}
