/* Contract double of virtdisk.dll, as far as layers' disks go: created, over a parent or not, and opened. */
#include "volume.h"
#include <stdlib.h>
#include <string.h>
#include <virtdisk.h>

/* The header declares these for whoever calls them. */
#pragma GCC diagnostic ignored "-Wattributes"

static HANDLE open_disk(const WCHAR *file) {
  return CreateFileW(file, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, OPEN_EXISTING, 0,
                     NULL);
}

static DWORD create(const WCHAR *file, const CREATE_VIRTUAL_DISK_PARAMETERS *parameters, HANDLE *handle) {
  if (file == NULL || handle == NULL || parameters == NULL || (int)parameters->Version != 2) return ERROR_INVALID_PARAMETER;
  const WCHAR *parent = parameters->Version2.ParentPath;
  Disk disk = {parameters->Version2.MaximumSize, false};
  /* A disk over another has its size, and what is on it. */
  if ((disk.size == 0) != (parent != NULL)) return ERROR_INVALID_PARAMETER;
  if (parent != NULL && !read_disk(parent, &disk)) return GetLastError();
  if (is_file(file)) return ERROR_FILE_EXISTS;
  if (!write_disk(file, &disk)) return GetLastError();
  *handle = open_disk(file);
  return *handle == INVALID_HANDLE_VALUE ? GetLastError() : 0;
}

DWORD WINAPI CreateVirtualDisk(PVIRTUAL_STORAGE_TYPE type, PCWSTR path, VIRTUAL_DISK_ACCESS_MASK access,
                               PSECURITY_DESCRIPTOR security, CREATE_VIRTUAL_DISK_FLAG flags, ULONG provider,
                               PCREATE_VIRTUAL_DISK_PARAMETERS parameters, LPOVERLAPPED overlapped, PHANDLE handle) {
  Call call;
  begin(&call, "CreateVirtualDisk");
  arg_text(&call, "path", path);
  arg_text(&call, "parent", parameters == NULL ? NULL : parameters->Version2.ParentPath);
  arg_number(&call, "size", parameters == NULL ? 0 : parameters->Version2.MaximumSize);
  if (!enter(&call)) return leave(&call, call.failure);
  (void)access, (void)security, (void)flags, (void)provider;
  if (type == NULL || overlapped != NULL) return leave(&call, ERROR_INVALID_PARAMETER);
  return leave(&call, create(path, parameters, handle));
}

DWORD WINAPI OpenVirtualDisk(PVIRTUAL_STORAGE_TYPE type, PCWSTR path, VIRTUAL_DISK_ACCESS_MASK access,
                             OPEN_VIRTUAL_DISK_FLAG flags, POPEN_VIRTUAL_DISK_PARAMETERS parameters, PHANDLE handle) {
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
static DWORD of_handle(HANDLE handle, DWORD (*work)(const WCHAR *file)) {
  WCHAR path[1024];
  DWORD length = GetFinalPathNameByHandleW(handle, path, 1024, FILE_NAME_NORMALIZED | VOLUME_NAME_DOS);
  if (length == 0 || length >= 1024) return ERROR_INVALID_HANDLE;
  lock_world();
  DWORD error = work(path);
  unlock_world();
  return error;
}

DWORD WINAPI AttachVirtualDisk(HANDLE handle, PSECURITY_DESCRIPTOR security, ATTACH_VIRTUAL_DISK_FLAG flags, ULONG provider,
                               PATTACH_VIRTUAL_DISK_PARAMETERS parameters, LPOVERLAPPED overlapped) {
  Call call;
  begin(&call, "AttachVirtualDisk");
  arg_number(&call, "flags", flags);
  if (!enter(&call)) return leave(&call, call.failure);
  (void)security, (void)provider, (void)parameters, (void)overlapped;
  return leave(&call, of_handle(handle, attach_disk));
}

DWORD WINAPI DetachVirtualDisk(HANDLE handle, DETACH_VIRTUAL_DISK_FLAG flags, ULONG provider) {
  Call call;
  begin(&call, "DetachVirtualDisk");
  if (!enter(&call)) return leave(&call, call.failure);
  (void)flags, (void)provider;
  return leave(&call, of_handle(handle, detach_disk));
}

DWORD WINAPI GetVirtualDiskPhysicalPath(HANDLE handle, PULONG size, PWSTR path) {
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
