/*
 * Changes of a utility VM, by hcsshim's documents. Each thing is a file of the VM's folder, named after what it is, which
 * holds the host's path or the guest's; so a test sees what a VM has, and two can't be one. Refused is what HCS and its
 * guests refuse: fields they don't know, places that are taken, things that aren't there or that something stands on.
 */
#include "vm.h"
#include "json.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOT_THERE FAILED_WITH(ERROR_NOT_FOUND)
#define TAKEN FAILED_WITH(ERROR_ALREADY_EXISTS)
#define IN_USE FAILED_WITH(ERROR_SHARING_VIOLATION)
#define INVALID FAILED_WITH(ERROR_INVALID_PARAMETER)

static const HRESULT INVALID_JSON = (HRESULT)0x8037010D;
static const HRESULT INVALID_STATE = (HRESULT)0x80370105;

static const WCHAR *const CONTROLLERS[] = {
    L"df6d0690-79e5-55b6-a5ec-c1e2f77f580a", L"0110f83b-de10-5172-a266-78bca56bf50a",
    L"b5d2d8d4-3a75-51bf-945b-3444dc6b8579", L"305891a9-b251-5dfe-91a2-c25d9212275b"};
enum { LUNS = 64, PMEM_DEVICES = 2 };

typedef struct {
  const WCHAR *folder;
  Json json;
  bool add;
} Request;

static const WCHAR *get(const Request *request, const char *path) {
  return json_text(&request->json, path);
}

/* --- the things of a VM --- */

static WCHAR *thing_path(const Request *request, const char *kind, const WCHAR *name) {
  WCHAR file[512];
  swprintf(file, 512, L"%hs %ls", kind, name);
  for (WCHAR *at = file; *at; at++)
    if (wcschr(L"\\/:?*{}", *at) != NULL) *at = '_';
  return join_path(request->folder, file);
}

static bool has_thing(const Request *request, const char *kind, const WCHAR *name) {
  WCHAR *path = thing_path(request, kind, name);
  bool there = is_file(path);
  free(path);
  return there;
}

static HRESULT add_thing(const Request *request, const char *kind, const WCHAR *name, const WCHAR *holds) {
  if (has_thing(request, kind, name)) return TAKEN;
  WCHAR *path = thing_path(request, kind, name);
  bool made = make_directories(request->folder) && write_whole(path, holds, wcslen(holds) * sizeof *holds);
  free(path);
  return made ? S_OK : FAILED_WITH(GetLastError());
}

static HRESULT remove_thing(const Request *request, const char *kind, const WCHAR *name) {
  WCHAR *path = thing_path(request, kind, name);
  bool removed = DeleteFileW(path);
  free(path);
  return removed ? S_OK : NOT_THERE;
}

/* Whether a thing of the kind holds exactly this. */
static bool is_held(const Request *request, const char *kind, const WCHAR *holds) {
  WCHAR pattern[32];
  swprintf(pattern, 32, L"%hs *", kind);
  WCHAR *search_path = join_path(request->folder, pattern);
  WIN32_FIND_DATAW entry;
  HANDLE search = FindFirstFileW(search_path, &entry);
  free(search_path);
  if (search == INVALID_HANDLE_VALUE) return false;
  bool found = false;
  do {
    WCHAR *path = join_path(request->folder, entry.cFileName);
    size_t size;
    uint8_t *text = read_whole(path, &size);
    free(path);
    found = text != NULL && size == wcslen(holds) * sizeof *holds && memcmp(text, holds, size) == 0;
    free(text);
  } while (!found && FindNextFileW(search, &entry));
  FindClose(search);
  return found;
}

/* --- devices --- */

static bool number_after(const WCHAR *text, uint32_t limit, uint32_t *number) {
  WCHAR *end;
  *number = wcstoul(text, &end, 10);
  return end != text && *end == 0 && *number < limit;
}

static HRESULT change_scsi(const Request *request, const WCHAR *rest) {
  uint32_t controller = 0, lun;
  while (controller < 4 && wcsncmp(rest, CONTROLLERS[controller], 36) != 0) controller++;
  if (controller == 4 || wcsncmp(rest + 36, L"/Attachments/", 13) != 0 || !number_after(rest + 49, LUNS, &lun))
    return INVALID;
  WCHAR slot[16];
  swprintf(slot, 16, L"%u-%u", controller, lun);
  if (!request->add) return is_held(request, "mount", slot) ? IN_USE : remove_thing(request, "scsi", slot);
  const WCHAR *type = get(request, "Settings.Type"), *path = get(request, "Settings.Path");
  if (type == NULL || wcscmp(type, L"VirtualDisk") != 0 || path == NULL) return INVALID;
  if (!is_file(path)) return FAILED_WITH(ERROR_FILE_NOT_FOUND);
  if (!has_thing(request, "scsi", slot) && is_held(request, "scsi", path)) return IN_USE;
  return add_thing(request, "scsi", slot, path);
}

static HRESULT change_pmem(const Request *request, const WCHAR *rest) {
  uint32_t device;
  if (!number_after(rest, PMEM_DEVICES, &device)) return INVALID;
  if (!request->add) return remove_thing(request, "pmem", rest);
  const WCHAR *path = get(request, "Settings.HostPath"), *format = get(request, "Settings.ImageFormat");
  const WCHAR *only = get(request, "Settings.ReadOnly");
  if (path == NULL || format == NULL || wcscmp(format, L"Vhd1") != 0 || only == NULL) return INVALID;
  if (!is_file(path)) return FAILED_WITH(ERROR_FILE_NOT_FOUND);
  return add_thing(request, "pmem", rest, path);
}

static HRESULT change_share(const Request *request) {
  const WCHAR *name = get(request, "Settings.Name"), *path = get(request, "Settings.Path");
  if (name == NULL) return INVALID;
  if (!request->add) return remove_thing(request, "share", name);
  if (path == NULL || ends_in_backslash(path)) return INVALID;
  if (!is_directory(path)) return FAILED_WITH(ERROR_PATH_NOT_FOUND);
  return add_thing(request, "share", name, path);
}

static HRESULT change_device(const Request *request, const WCHAR *resource) {
  static const WCHAR SCSI[] = L"VirtualMachine/Devices/Scsi/", PMEM[] = L"VirtualMachine/Devices/VirtualPMem/Devices/";
  if (wcsncmp(resource, SCSI, wcslen(SCSI)) == 0) return change_scsi(request, resource + wcslen(SCSI));
  if (wcsncmp(resource, PMEM, wcslen(PMEM)) == 0) return change_pmem(request, resource + wcslen(PMEM));
  if (wcscmp(resource, L"VirtualMachine/Devices/VirtualSmb/Shares") == 0) return change_share(request);
  return INVALID;
}

/* --- what the guest is told --- */

#define GUEST "GuestRequest.Settings."

static HRESULT change_disk_mount(const Request *request) {
  const WCHAR *path = get(request, GUEST "ContainerPath"), *lun = get(request, GUEST "Lun");
  const WCHAR *controller = get(request, GUEST "Controller");
  if (path == NULL) path = get(request, GUEST "MountPath");
  if (path == NULL || lun == NULL) return INVALID;
  if (!request->add) return has_thing(request, "layers", path) || is_held(request, "layers", path) ? IN_USE : remove_thing(request, "mount", path);
  WCHAR slot[16];
  swprintf(slot, 16, L"%ls-%ls", controller == NULL ? L"0" : controller, lun);
  return has_thing(request, "scsi", slot) ? add_thing(request, "mount", path, slot) : NOT_THERE;
}

static HRESULT change_cims(const Request *request) {
  const WCHAR *volume = get(request, GUEST "VolumeGUID");
  if (volume == NULL) return INVALID;
  if (!request->add) return remove_thing(request, "cims", volume);
  const WCHAR *flags = get(request, GUEST "MountFlags");
  if (flags == NULL || wcscmp(flags, L"16") != 0) return INVALID;
  char path[80];
  for (uint32_t at = 0;; at++) {
    snprintf(path, sizeof path, GUEST "BlockCIMs[%u].Lun", at);
    const WCHAR *lun = get(request, path);
    snprintf(path, sizeof path, GUEST "BlockCIMs[%u].CimName", at);
    if (lun == NULL) return at == 0 ? INVALID : add_thing(request, "cims", volume, volume);
    WCHAR slot[16];
    swprintf(slot, 16, L"0-%ls", lun);
    if (get(request, path) == NULL || !has_thing(request, "scsi", slot)) return NOT_THERE;
  }
}

/* A layer is a share, a volume of CIMs, a mounted disk, or memory. */
static bool is_layer(const Request *request, const WCHAR *path) {
  static const WCHAR SHARE[] = L"\\\\?\\VMSMB\\VSMB-{dcc079ae-60ba-4d07-847c-3493609c0870}\\";
  static const WCHAR VOLUME[] = L"\\\\?\\Volume{", MEMORY[] = L"/run/layers/p";
  if (wcsncmp(path, SHARE, wcslen(SHARE)) == 0) return has_thing(request, "share", path + wcslen(SHARE));
  if (wcsncmp(path, MEMORY, wcslen(MEMORY)) == 0) return has_thing(request, "pmem", path + wcslen(MEMORY));
  if (wcsncmp(path, VOLUME, wcslen(VOLUME)) != 0) return has_thing(request, "mount", path);
  WCHAR guid[37] = {0};
  return wcscmp(path + 47, L"}\\Files") == 0 && has_thing(request, "cims", wcsncpy(guid, path + 11, 36));
}

static HRESULT change_layers(const Request *request) {
  const WCHAR *root = get(request, GUEST "ContainerRootPath"), *scratch = get(request, GUEST "ScratchPath");
  if (root == NULL) return INVALID;
  if (!request->add) return remove_thing(request, "layers", root);
  char path[80];
  uint32_t count = 0;
  for (;; count++) {
    snprintf(path, sizeof path, GUEST "Layers[%u].Path", count);
    const WCHAR *layer = get(request, path);
    if (layer == NULL) break;
    if (!is_layer(request, layer)) return NOT_THERE;
  }
  if (count == 0) return INVALID;
  bool windows = root[0] != '/';
  if (windows && !has_thing(request, "mount", root)) return NOT_THERE;
  return add_thing(request, "layers", root, scratch == NULL ? root : scratch);
}

static HRESULT change_guest(const Request *request, const WCHAR *type) {
  if (wcscmp(type, L"MappedVirtualDisk") == 0) return change_disk_mount(request);
  if (wcscmp(type, L"WCOWBlockCims") == 0) return change_cims(request);
  if (wcscmp(type, L"CombinedLayers") == 0) return change_layers(request);
  if (wcscmp(type, L"VPMemDevice") == 0)
    return get(request, GUEST "DeviceNumber") != NULL && get(request, GUEST "MountPath") != NULL ? S_OK : INVALID;
  if (wcscmp(type, L"SCSIDevice") != 0 || request->add) return INVALID;
  return get(request, GUEST "Lun") != NULL && get(request, GUEST "Controller") != NULL ? S_OK : INVALID;
}

/* --- documents --- */

static bool is_known(const WCHAR *path) {
  static const WCHAR *const FIELDS[] = {
      L"ResourcePath", L"RequestType", L"Type", L"Path", L"ReadOnly", L"HostPath", L"ImageFormat", L"Name",
      L"ShareRead", L"CacheIo", L"PseudoOplocks", L"TakeBackupPrivilege", L"NoDirectmap", L"ResourceType",
      L"ContainerPath", L"Lun", L"Controller", L"MountPath", L"EnsureFilesystem", L"Filesystem", L"DeviceNumber",
      L"CimName", L"VolumeGUID", L"MountFlags", L"ContainerID", L"ContainerRootPath", L"ScratchPath", L"FilterType", L"Id"};
  const WCHAR *last = wcsrchr(path, '.');
  last = last == NULL ? path : last + 1;
  if (wcsncmp(last, L"Options[", 8) == 0) return true;
  for (size_t at = 0; at < sizeof FIELDS / sizeof *FIELDS; at++)
    if (wcscmp(last, FIELDS[at]) == 0) return true;
  return false;
}

static HRESULT apply(Request *request, bool guest) {
  for (uint32_t at = 0; at < request->json.count; at++)
    if (!is_known(request->json.values[at].path)) return INVALID_JSON;
  const WCHAR *resource = get(request, "ResourcePath"), *type = get(request, "GuestRequest.ResourceType");
  const WCHAR *verb = get(request, resource == NULL ? "GuestRequest.RequestType" : "RequestType");
  if (verb == NULL || (resource == NULL && type == NULL)) return INVALID_JSON;
  request->add = wcscmp(verb, L"Add") == 0;
  if (!request->add && wcscmp(verb, L"Remove") != 0) return INVALID_JSON;
  if (type != NULL && !guest) return INVALID_STATE;
  HRESULT result = type == NULL ? S_OK : change_guest(request, type);
  return FAILED(result) || resource == NULL ? result : change_device(request, resource);
}

HRESULT modify_vm(const WCHAR *folder, bool guest, const WCHAR *document) {
  Request request = {.folder = folder};
  HRESULT result = parse_json(document, &request.json) ? apply(&request, guest) : INVALID_JSON;
  free_json(&request.json);
  return result;
}
