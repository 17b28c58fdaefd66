/* Contract double of computestorage.dll. Contract: hcsshim computestorage and the HCS storage reference. */
#include "layer.h"
#include <stdlib.h>
#include <string.h>

#define INVALID FAILED_WITH(ERROR_INVALID_PARAMETER)

enum { MOST_LAYERS = 128 };

typedef struct {
  WCHAR *paths[MOST_LAYERS];
  uint32_t count;
  WCHAR *filter;
} LayerData;

static HRESULT result_of(DWORD error) {
  return error == 0 ? S_OK : FAILED_WITH(error);
}

static void arg_data(Call *call, const WCHAR *json) {
  arg_text(call, "layerData", json);
}

static HRESULT read_data(const WCHAR *json, LayerData *data) {
  memset(data, 0, sizeof *data);
  if (json == NULL || wcsstr(json, L"\"SchemaVersion\"") == NULL || wcsstr(json, L"\"Major\":2") == NULL) return INVALID;
  data->count = json_texts(json, L"Path", data->paths, MOST_LAYERS);
  WCHAR *filters[1];
  data->filter = json_texts(json, L"FilterType", filters, 1) == 1 ? filters[0] : copy_text(L"WCIFS");
  bool known = wcscmp(data->filter, L"WCIFS") == 0 || wcscmp(data->filter, L"UnionFS") == 0;
  return known ? S_OK : INVALID;
}

static HRESULT check_parents(const LayerData *data) {
  for (uint32_t at = 0; at < data->count; at++)
    if (!is_directory(data->paths[at])) return FAILED_WITH(ERROR_PATH_NOT_FOUND);
  return S_OK;
}

HRESULT WINAPI HcsImportLayer(const WCHAR *layer, const WCHAR *source, const WCHAR *json) {
  Call call;
  LayerData data;
  begin(&call, "HcsImportLayer");
  arg_text(&call, "layerPath", layer);
  arg_text(&call, "sourceFolderPath", source);
  arg_data(&call, json);
  if (!enter(&call)) return leave(&call, call.failure);
  HRESULT result = read_data(json, &data);
  if (SUCCEEDED(result)) result = check_parents(&data);
  return leave(&call, FAILED(result) ? result : result_of(import_layer(layer, source, data.paths, data.count)));
}

HRESULT WINAPI HcsExportLayer(const WCHAR *layer, const WCHAR *target, const WCHAR *json, const WCHAR *options) {
  Call call;
  LayerData data;
  begin(&call, "HcsExportLayer");
  arg_text(&call, "layerPath", layer);
  arg_text(&call, "exportFolderPath", target);
  arg_data(&call, json);
  arg_text(&call, "options", options);
  if (!enter(&call)) return leave(&call, call.failure);
  HRESULT result = read_data(json, &data);
  if (SUCCEEDED(result)) result = check_parents(&data);
  return leave(&call, FAILED(result) ? result : result_of(export_layer(layer, target, data.paths, data.count)));
}

HRESULT WINAPI HcsDestroyLayer(const WCHAR *layer) {
  Call call;
  begin(&call, "HcsDestroyLayer");
  arg_text(&call, "layerPath", layer);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, result_of(destroy_layer(layer)));
}

HRESULT WINAPI HcsSetupBaseOSLayer(const WCHAR *layer, HANDLE disk, const WCHAR *options) {
  Call call;
  begin(&call, "HcsSetupBaseOSLayer");
  arg_text(&call, "layerPath", layer);
  arg_number(&call, "hasDisk", disk != NULL);
  arg_text(&call, "options", options);
  if (!enter(&call)) return leave(&call, call.failure);
  bool vm = options != NULL && wcsstr(options, L"\"Vm\"") != NULL;
  if (layer == NULL || options == NULL || vm != (disk != NULL)) return leave(&call, INVALID);
  return leave(&call, has_privileges() ? S_OK : FAILED_WITH(ERROR_PRIVILEGE_NOT_HELD));
}

HRESULT WINAPI HcsSetupBaseOSVolume(const WCHAR *layer, const WCHAR *volume, const WCHAR *options) {
  Call call;
  GUID guid;
  begin(&call, "HcsSetupBaseOSVolume");
  arg_text(&call, "layerPath", layer);
  arg_text(&call, "volumePath", volume);
  arg_text(&call, "options", options);
  if (!enter(&call)) return leave(&call, call.failure);
  if (layer == NULL || options == NULL || !volume_in_path(volume, &guid)) return leave(&call, INVALID);
  return leave(&call, is_volume(&guid) ? S_OK : FAILED_WITH(ERROR_PATH_NOT_FOUND));
}

HRESULT WINAPI HcsInitializeWritableLayer(const WCHAR *layer, const WCHAR *json, const WCHAR *options) {
  Call call;
  LayerData data;
  begin(&call, "HcsInitializeWritableLayer");
  arg_text(&call, "writableLayerPath", layer);
  arg_data(&call, json);
  arg_text(&call, "options", options);
  if (!enter(&call)) return leave(&call, call.failure);
  HRESULT result = read_data(json, &data);
  if (SUCCEEDED(result)) result = check_parents(&data);
  if (SUCCEEDED(result) && (layer == NULL || !is_directory(layer))) result = FAILED_WITH(ERROR_PATH_NOT_FOUND);
  return leave(&call, result);
}

static HRESULT attach(const WCHAR *volume, const WCHAR *json, bool layer_filter) {
  LayerData data;
  GUID guid;
  HRESULT result = read_data(json, &data);
  if (FAILED(result)) return result;
  if (!volume_in_path(volume, &guid) || (layer_filter && wcscmp(data.filter, L"WCIFS") != 0)) return INVALID;
  lock_world();
  result = result_of(attach_filter(&guid, data.filter, data.paths, data.count));
  unlock_world();
  return result;
}

HRESULT WINAPI HcsAttachLayerStorageFilter(const WCHAR *layer, const WCHAR *json) {
  Call call;
  begin(&call, "HcsAttachLayerStorageFilter");
  arg_text(&call, "layerPath", layer);
  arg_data(&call, json);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, attach(layer, json, true));
}

HRESULT WINAPI HcsAttachOverlayFilter(const WCHAR *volume, const WCHAR *json) {
  Call call;
  begin(&call, "HcsAttachOverlayFilter");
  arg_text(&call, "volumePath", volume);
  arg_data(&call, json);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, attach(volume, json, false));
}

static HRESULT detach(const WCHAR *volume, const WCHAR *filter) {
  GUID guid;
  if (!volume_in_path(volume, &guid)) return INVALID;
  lock_world();
  HRESULT result = result_of(detach_filter(&guid, filter));
  unlock_world();
  return result;
}

HRESULT WINAPI HcsDetachLayerStorageFilter(const WCHAR *layer) {
  Call call;
  begin(&call, "HcsDetachLayerStorageFilter");
  arg_text(&call, "layerPath", layer);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, detach(layer, L"WCIFS"));
}

HRESULT WINAPI HcsDetachOverlayFilter(const WCHAR *volume, const WCHAR *json) {
  Call call;
  LayerData data;
  begin(&call, "HcsDetachOverlayFilter");
  arg_text(&call, "volumePath", volume);
  arg_data(&call, json);
  if (!enter(&call)) return leave(&call, call.failure);
  HRESULT result = read_data(json, &data);
  return leave(&call, FAILED(result) ? result : detach(volume, data.filter));
}

/* The disk a handle of OpenVirtualDisk's is of. */
static WCHAR *disk_of_handle(HANDLE handle) {
  WCHAR path[1024];
  DWORD length = GetFinalPathNameByHandleW(handle, path, 1024, FILE_NAME_NORMALIZED | VOLUME_NAME_DOS);
  return length == 0 || length >= 1024 ? NULL : copy_text(path);
}

HRESULT WINAPI HcsFormatWritableLayerVhd(HANDLE handle) {
  Call call;
  Disk disk;
  WCHAR *file = disk_of_handle(handle);
  begin(&call, "HcsFormatWritableLayerVhd");
  arg_text(&call, "disk", file);
  if (!enter(&call)) return leave(&call, call.failure);
  if (file == NULL) return leave(&call, E_HANDLE);
  HRESULT result = S_OK;
  if (!read_disk(file, &disk)) result = FAILED_WITH(GetLastError());
  else if (!write_disk(file, &(Disk){disk.size, disk.size})) result = FAILED_WITH(GetLastError());
  free(file);
  return leave(&call, result);
}

HRESULT WINAPI HcsGetLayerVhdMountPath(HANDLE handle, WCHAR **path) {
  Call call;
  GUID volume;
  WCHAR *file = disk_of_handle(handle), guid[39];
  begin(&call, "HcsGetLayerVhdMountPath");
  arg_text(&call, "disk", file);
  if (!enter(&call)) return leave(&call, call.failure);
  if (file == NULL || path == NULL) return leave(&call, E_HANDLE);
  disk_volume(file, &volume);
  free(file);
  if (!is_volume(&volume)) return leave(&call, FAILED_WITH(ERROR_NOT_READY));
  guid_text(&volume, guid);
  *path = LocalAlloc(LMEM_FIXED, 64 * sizeof **path);
  wcscat(wcscpy(*path, L"\\\\?\\Volume"), guid);
  return leave(&call, S_OK);
}
