/*
 * Contract double of virtdisk.dll, as far as layers' disks go: created, over a parent or not, and opened. virtdisk.def
 * gives the functions their names, which windows.h has taken.
 */
#include "volume.h"
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* CREATE_VIRTUAL_DISK_PARAMETERS of version 2, as learn.microsoft.com has it; mingw-w64's lacks the physical sector size. */
typedef struct {
  int version;
  GUID unique_id __attribute__((aligned(8)));
  uint64_t maximum_size;
  uint32_t block_size, sector_size, physical_sector_size;
  const WCHAR *parent_path, *source_path;
} CreateParameters;

_Static_assert(offsetof(CreateParameters, maximum_size) == 24, "CREATE_VIRTUAL_DISK_PARAMETERS");
_Static_assert(offsetof(CreateParameters, parent_path) == 48, "CREATE_VIRTUAL_DISK_PARAMETERS");

static HANDLE open_disk(const WCHAR *file) {
  return CreateFileW(file, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, OPEN_EXISTING, 0,
                     NULL);
}

static DWORD create(const WCHAR *file, const CreateParameters *parameters, HANDLE *handle) {
  if (file == NULL || handle == NULL || parameters == NULL || parameters->version != 2) return ERROR_INVALID_PARAMETER;
  const WCHAR *parent = parameters->parent_path;
  Disk disk = {parameters->maximum_size, 0};
  /* A disk over another has its size, and what is on it. */
  if ((disk.size == 0) != (parent != NULL)) return ERROR_INVALID_PARAMETER;
  if (parent != NULL && !read_disk(parent, &disk)) return GetLastError();
  if (disk.size % 512 != 0) return ERROR_INVALID_PARAMETER;
  if (is_file(file)) return ERROR_FILE_EXISTS;
  if (!create_disk(file, &disk)) return GetLastError();
  *handle = open_disk(file);
  return *handle == INVALID_HANDLE_VALUE ? GetLastError() : 0;
}

DWORD WINAPI DoubleCreateVirtualDisk(const void *type, const WCHAR *path, int access, void *security, int flags, ULONG provider,
                               const CreateParameters *parameters, void *overlapped, HANDLE *handle) {
  Call call;
  begin(&call, "CreateVirtualDisk");
  arg_text(&call, "path", path);
  arg_text(&call, "parent", parameters == NULL ? NULL : parameters->parent_path);
  arg_number(&call, "size", parameters == NULL ? 0 : parameters->maximum_size);
  if (!enter(&call)) return leave(&call, call.failure);
  (void)access, (void)security, (void)flags, (void)provider;
  if (type == NULL || overlapped != NULL) return leave(&call, ERROR_INVALID_PARAMETER);
  return leave(&call, create(path, parameters, handle));
}

DWORD WINAPI DoubleOpenVirtualDisk(const void *type, const WCHAR *path, int access, int flags, const void *parameters,
                             HANDLE *handle) {
  Call call;
  Disk disk;
  begin(&call, "OpenVirtualDisk");
  arg_text(&call, "path", path);
  if (!enter(&call)) return leave(&call, call.failure);
  (void)access, (void)flags, (void)parameters;
  if (type == NULL || path == NULL || handle == NULL) return leave(&call, ERROR_INVALID_PARAMETER);
  if (!read_disk(path, &disk)) return leave(&call, GetLastError());
  *handle = open_disk(path);
  return leave(&call, *handle == INVALID_HANDLE_VALUE ? GetLastError() : 0);
}

/* What a handle is of. */
static bool file_of(HANDLE handle, WCHAR path[1024]) {
  DWORD length = GetFinalPathNameByHandleW(handle, path, 1024, FILE_NAME_NORMALIZED | VOLUME_NAME_DOS);
  return length > 0 && length < 1024;
}

DWORD WINAPI DoubleAttachVirtualDisk(HANDLE handle, void *security, int flags, ULONG provider, const void *parameters,
                               void *overlapped) {
  Call call;
  begin(&call, "AttachVirtualDisk");
  arg_number(&call, "flags", flags);
  if (!enter(&call)) return leave(&call, call.failure);
  (void)security, (void)provider, (void)parameters, (void)overlapped;
  WCHAR file[1024];
  if (!file_of(handle, file)) return leave(&call, ERROR_INVALID_HANDLE);
  lock_world();
  DWORD error = attach_disk(file, (flags & 4) != 0);
  unlock_world();
  return leave(&call, error);
}

DWORD WINAPI DoubleDetachVirtualDisk(HANDLE handle, int flags, ULONG provider) {
  Call call;
  begin(&call, "DetachVirtualDisk");
  if (!enter(&call)) return leave(&call, call.failure);
  (void)flags, (void)provider;
  WCHAR file[1024];
  if (!file_of(handle, file)) return leave(&call, ERROR_INVALID_HANDLE);
  lock_world();
  DWORD error = detach_disk(file);
  unlock_world();
  return leave(&call, error);
}

DWORD WINAPI DoubleGetVirtualDiskPhysicalPath(HANDLE handle, ULONG *size, WCHAR *path) {
  static const WCHAR DRIVE[] = L"\\\\.\\PhysicalDrive1";
  Call call;
  begin(&call, "GetVirtualDiskPhysicalPath");
  if (!enter(&call)) return leave(&call, call.failure);
  (void)handle;
  if (size == NULL || path == NULL || *size < sizeof DRIVE) return leave(&call, ERROR_INSUFFICIENT_BUFFER);
  memcpy(path, DRIVE, sizeof DRIVE);
  *size = sizeof DRIVE;
  return leave(&call, 0);
}
