/* Contract double of vmcompute.dll's layer calls. Contract: hcsshim internal/wclayer. */
#include "layer.h"
#include <objbase.h>
#include <stdlib.h>
#include <string.h>

#define INVALID FAILED_WITH(ERROR_INVALID_PARAMETER)
#define SCRATCH L"sandbox.vhdx"

typedef struct {
  int flavour;
  const WCHAR *home;
} DriverInfo;

typedef struct {
  GUID id;
  uint32_t flags;
  const WCHAR *path;
} Descriptor;

_Static_assert(sizeof(Descriptor) == 32, "WC_LAYER_DESCRIPTOR");

static const uint64_t SCRATCH_SIZE = 20ull << 30;

static void arg_layers(Call *call, const Descriptor *layers, uint32_t count) {
  put_text(&call->line, ",\"parents\":[");
  for (uint32_t at = 0; layers != NULL && at < count; at++) {
    if (at > 0) put_text(&call->line, ",");
    put_json(&call->line, layers[at].path);
  }
  put_text(&call->line, "]");
}

static HRESULT check_layer(const DriverInfo *info, const WCHAR *id) {
  if (info == NULL || info->flavour != 1 || info->home == NULL || id == NULL || *id == 0) return INVALID;
  return ends_in_backslash(id) ? FAILED_WITH(ERROR_INVALID_NAME) : S_OK;
}

/* Parents are there, and each has the ID that its name gives. */
static HRESULT check_parents(const Descriptor *layers, uint32_t count) {
  if (count > 0 && layers == NULL) return INVALID;
  for (uint32_t at = 0; at < count; at++) {
    const WCHAR *name = layers[at].path == NULL ? NULL : wcsrchr(layers[at].path, '\\');
    GUID id;
    if (name == NULL || name[1] == 0) return FAILED_WITH(ERROR_INVALID_NAME);
    name_guid(name + 1, &id);
    if (memcmp(&id, &layers[at].id, sizeof id) != 0) return INVALID;
    if (!is_directory(layers[at].path)) return FAILED_WITH(ERROR_PATH_NOT_FOUND);
  }
  return S_OK;
}

static DWORD with_parents(DWORD (*work)(const WCHAR *, const WCHAR *, WCHAR *const *, uint32_t), const WCHAR *layer,
                          const WCHAR *folder, const Descriptor *layers, uint32_t count) {
  WCHAR **parents = allocate((count + 1) * sizeof *parents);
  for (uint32_t at = 0; at < count; at++) parents[at] = copy_text(layers[at].path);
  DWORD error = work(layer, folder, parents, count);
  for (uint32_t at = 0; at < count; at++) free(parents[at]);
  free(parents);
  return error;
}

static void volume_of(const WCHAR *id, GUID *volume) {
  WCHAR *disk = join_path(id, SCRATCH);
  disk_volume(disk, volume);
  free(disk);
}

static HRESULT result_of(DWORD error) {
  return error == 0 ? S_OK : FAILED_WITH(error);
}

#define BEGIN_LAYER(name)            \
  Call call;                         \
  begin(&call, name);                \
  arg_text(&call, "id", id);         \
  HRESULT result = check_layer(info, id)

#define ENTER_LAYER                                    \
  if (!enter(&call)) return leave(&call, call.failure); \
  if (FAILED(result)) return leave(&call, result)

HRESULT WINAPI ActivateLayer(const DriverInfo *info, const WCHAR *id) {
  BEGIN_LAYER("ActivateLayer");
  ENTER_LAYER;
  WCHAR *disk = join_path(id, SCRATCH);
  lock_world();
  result = result_of(is_file(disk) ? attach_disk(disk, true) : ERROR_FILE_NOT_FOUND);
  unlock_world();
  free(disk);
  return leave(&call, result);
}

HRESULT WINAPI DeactivateLayer(const DriverInfo *info, const WCHAR *id) {
  BEGIN_LAYER("DeactivateLayer");
  ENTER_LAYER;
  WCHAR *disk = join_path(id, SCRATCH);
  lock_world();
  result = result_of(detach_disk(disk));
  unlock_world();
  free(disk);
  return leave(&call, result);
}

static HRESULT prepare(const WCHAR *id, const Descriptor *layers, uint32_t count) {
  HRESULT checked = check_parents(layers, count);
  if (FAILED(checked)) return checked;
  GUID volume;
  volume_of(id, &volume);
  WCHAR **parents = allocate(count * sizeof *parents);
  for (uint32_t at = 0; at < count; at++) parents[at] = join_path(layers[at].path, L"Files");
  lock_world();
  DWORD error = attach_filter(&volume, L"WCIFS", parents, count);
  /* It extends the file system over its disk, which nothing else does for a WCIFS scratch. */
  WCHAR *file = join_path(id, SCRATCH);
  Disk disk;
  if (error == 0 && read_disk(file, &disk)) write_disk(file, &(Disk){disk.size, disk.size});
  free(file);
  unlock_world();
  for (uint32_t at = 0; at < count; at++) free(parents[at]);
  free(parents);
  return result_of(error);
}

HRESULT WINAPI PrepareLayer(const DriverInfo *info, const WCHAR *id, const Descriptor *layers, uint32_t count) {
  BEGIN_LAYER("PrepareLayer");
  arg_layers(&call, layers, count);
  ENTER_LAYER;
  return leave(&call, prepare(id, layers, count));
}

HRESULT WINAPI UnprepareLayer(const DriverInfo *info, const WCHAR *id) {
  BEGIN_LAYER("UnprepareLayer");
  ENTER_LAYER;
  GUID volume;
  volume_of(id, &volume);
  lock_world();
  result = result_of(detach_filter(&volume, L"WCIFS"));
  unlock_world();
  return leave(&call, result);
}

static HRESULT make_folder(const WCHAR *id) {
  if (is_directory(id)) return S_OK;
  return make_directories(id) ? S_OK : FAILED_WITH(GetLastError());
}

HRESULT WINAPI CreateLayer(const DriverInfo *info, const WCHAR *id, const WCHAR *parent) {
  BEGIN_LAYER("CreateLayer");
  arg_text(&call, "parent", parent);
  ENTER_LAYER;
  return leave(&call, make_folder(id));
}

static HRESULT create_scratch(const WCHAR *id, const Descriptor *layers, uint32_t count) {
  HRESULT checked = count == 0 ? INVALID : check_parents(layers, count);
  if (SUCCEEDED(checked)) checked = make_folder(id);
  if (FAILED(checked)) return checked;
  WCHAR *disk = join_path(id, SCRATCH);
  HRESULT result = is_file(disk) ? FAILED_WITH(ERROR_FILE_EXISTS) : S_OK;
  if (SUCCEEDED(result) && !create_disk(disk, &(Disk){SCRATCH_SIZE, SCRATCH_SIZE})) result = FAILED_WITH(GetLastError());
  free(disk);
  return result;
}

HRESULT WINAPI CreateSandboxLayer(const DriverInfo *info, const WCHAR *id, uintptr_t parent, const Descriptor *layers,
                                  uint32_t count) {
  BEGIN_LAYER("CreateSandboxLayer");
  arg_layers(&call, layers, count);
  ENTER_LAYER;
  return leave(&call, parent != 0 ? INVALID : create_scratch(id, layers, count));
}

static HRESULT expand(const WCHAR *id, uint64_t size) {
  WCHAR *file = join_path(id, SCRATCH);
  GUID volume;
  Disk disk;
  disk_volume(file, &volume);
  HRESULT result = S_OK;
  if (!read_disk(file, &disk)) result = FAILED_WITH(GetLastError());
  else if (is_volume(&volume)) result = FAILED_WITH(ERROR_SHARING_VIOLATION);
  /* It needs a file system to grow, which stays as large as it was, and can't shrink. */
  else if (disk.volume == 0 || size < disk.size) result = INVALID;
  else if (!write_disk(file, &(Disk){size, disk.volume})) result = FAILED_WITH(GetLastError());
  free(file);
  return result;
}

HRESULT WINAPI ExpandSandboxSize(const DriverInfo *info, const WCHAR *id, uint64_t size) {
  BEGIN_LAYER("ExpandSandboxSize");
  arg_number(&call, "size", size);
  ENTER_LAYER;
  return leave(&call, expand(id, size));
}

HRESULT WINAPI DestroyLayer(const DriverInfo *info, const WCHAR *id) {
  BEGIN_LAYER("DestroyLayer");
  ENTER_LAYER;
  return leave(&call, result_of(destroy_layer(id)));
}

HRESULT WINAPI ImportLayer(const DriverInfo *info, const WCHAR *id, const WCHAR *path, const Descriptor *layers,
                           uint32_t count) {
  BEGIN_LAYER("ImportLayer");
  arg_text(&call, "path", path);
  arg_layers(&call, layers, count);
  ENTER_LAYER;
  result = check_parents(layers, count);
  return leave(&call, FAILED(result) ? result : result_of(with_parents(import_layer, id, path, layers, count)));
}

HRESULT WINAPI ExportLayer(const DriverInfo *info, const WCHAR *id, const WCHAR *path, const Descriptor *layers,
                           uint32_t count) {
  BEGIN_LAYER("ExportLayer");
  arg_text(&call, "path", path);
  arg_layers(&call, layers, count);
  ENTER_LAYER;
  result = check_parents(layers, count);
  return leave(&call, FAILED(result) ? result : result_of(with_parents(export_layer, id, path, layers, count)));
}

/* A layer that isn't active is where it is stored. */
static HRESULT mount_path(const WCHAR *id, size_t *length, WCHAR *buffer) {
  GUID volume;
  WCHAR guid[39], path[1024];
  volume_of(id, &volume);
  if (length == NULL || wcslen(id) >= 1024) return INVALID;
  if (is_volume(&volume)) {
    guid_text(&volume, guid);
    wcscat(wcscpy(path, L"\\\\?\\Volume"), guid);
  } else if (is_directory(id)) {
    wcscpy(path, id);
  } else {
    return FAILED_WITH(ERROR_PATH_NOT_FOUND);
  }
  size_t needed = wcslen(path) + 1;
  if (buffer != NULL && *length < needed) return FAILED_WITH(ERROR_INSUFFICIENT_BUFFER);
  if (buffer != NULL) wcscpy(buffer, path);
  *length = needed;
  return S_OK;
}

HRESULT WINAPI GetLayerMountPath(const DriverInfo *info, const WCHAR *id, size_t *length, WCHAR *buffer) {
  BEGIN_LAYER("GetLayerMountPath");
  arg_number(&call, "length", length == NULL ? 0 : *length);
  ENTER_LAYER;
  return leave(&call, mount_path(id, length, buffer));
}

HRESULT WINAPI LayerExists(const DriverInfo *info, const WCHAR *id, uint32_t *exists) {
  BEGIN_LAYER("LayerExists");
  ENTER_LAYER;
  if (exists == NULL) return leave(&call, INVALID);
  *exists = is_directory(id);
  return leave(&call, S_OK);
}

HRESULT WINAPI NameToGuid(const WCHAR *name, GUID *guid) {
  Call call;
  begin(&call, "NameToGuid");
  arg_text(&call, "name", name);
  if (!enter(&call)) return leave(&call, call.failure);
  if (name == NULL || guid == NULL || *name == 0) return leave(&call, INVALID);
  name_guid(name, guid);
  return leave(&call, S_OK);
}

HRESULT WINAPI ProcessBaseImage(const WCHAR *path) {
  Call call;
  begin(&call, "ProcessBaseImage");
  arg_text(&call, "path", path);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, path == NULL ? INVALID : result_of(process_image(path, false)));
}

HRESULT WINAPI ProcessUtilityImage(const WCHAR *path) {
  Call call;
  begin(&call, "ProcessUtilityImage");
  arg_text(&call, "path", path);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, path == NULL ? INVALID : result_of(process_image(path, true)));
}

HRESULT WINAPI GrantVmAccess(const WCHAR *vm, const WCHAR *file) {
  Call call;
  begin(&call, "GrantVmAccess");
  arg_text(&call, "vm", vm);
  arg_text(&call, "file", file);
  if (!enter(&call)) return leave(&call, call.failure);
  if (vm == NULL || file == NULL) return leave(&call, INVALID);
  return leave(&call, is_file(file) ? S_OK : FAILED_WITH(ERROR_FILE_NOT_FOUND));
}

HRESULT WINAPI GetBaseImages(WCHAR **images) {
  static const WCHAR NONE[] = L"{\"Images\":[]}";
  Call call;
  begin(&call, "GetBaseImages");
  if (!enter(&call)) return leave(&call, call.failure);
  if (images == NULL) return leave(&call, INVALID);
  *images = CoTaskMemAlloc(sizeof NONE);
  memcpy(*images, NONE, sizeof NONE);
  return leave(&call, S_OK);
}
