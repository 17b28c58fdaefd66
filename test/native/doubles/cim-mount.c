/*
 * Contract double of cimfs.dll's mounting half. A volume is a directory beside the drives, so every process of this world
 * sees it.
 */
#include "cim-image.h"
#include "volume.h"
#include <stdlib.h>
#include <string.h>

enum { MOUNT_BLOCK_DEVICE = 0x10, MOUNT_SINGLE_FILE = 0x20, MOUNT_VERIFIED = 0x80 };

typedef struct {
  const WCHAR *directory, *name;
} ImagePath;

static HRESULT show(const GUID *volume, Image *image, Image **sources, uint32_t count) {
  WCHAR *directory = volume_directory(volume), *record = volume_record(L"volumes", volume, L".json");
  Buffer listing = {0};
  HRESULT result = S_OK;
  lock_world();
  if (is_directory(directory)) {
    result = FAILED_WITH(ERROR_ALREADY_EXISTS);
  } else {
    put_text(&listing, "[");
    if (count > 0) result = merge_images(image, sources, count);
    if (SUCCEEDED(result) && !extract(image->root, directory, &listing)) result = FAILED_WITH(ERROR_FILE_CORRUPT);
    put_text(&listing, "\n]\n");
    if (SUCCEEDED(result)) write_whole(record, listing.text, listing.length);
    else remove_tree(directory);
  }
  unlock_world();
  free(listing.text);
  free(directory);
  free(record);
  return result;
}

static HRESULT check_verified(Image *image, uint16_t hash_size, const uint8_t *hash) {
  if (hash_size != HASH_SIZE || hash == NULL || !image->sealed) return INVALID;
  if (memcmp(hash, image->root_hash, HASH_SIZE) != 0 || !is_intact(image)) return FAILED_WITH(ERROR_CRC);
  return S_OK;
}

static HRESULT load_mounted(const ImagePath *path, uint32_t flags, Image **image) {
  uint32_t type = flags & (MOUNT_BLOCK_DEVICE | MOUNT_SINGLE_FILE);
  if (path->directory == NULL || path->name == NULL || type == (MOUNT_BLOCK_DEVICE | MOUNT_SINGLE_FILE)) return INVALID;
  if (ends_in_backslash(path->directory)) return FAILED_WITH(ERROR_INVALID_NAME);
  HRESULT loaded = load_image(path->directory, path->name, type != 0, image);
  if (FAILED(loaded) || type == 0) return loaded;
  uint32_t created = type == MOUNT_BLOCK_DEVICE ? CREATE_BLOCK_DEVICE : CREATE_SINGLE_FILE;
  return (*image)->flags & created ? S_OK : INVALID;
}

static HRESULT mount_one(ImagePath path, uint32_t flags, const GUID *volume, bool verified, uint16_t hash_size,
                         const uint8_t *hash) {
  Image *image;
  if (volume == NULL || flags & ~(2u | MOUNT_BLOCK_DEVICE | MOUNT_SINGLE_FILE | (verified ? 0 : MOUNT_VERIFIED)))
    return INVALID;
  HRESULT result = load_mounted(&path, flags, &image);
  if (FAILED(result)) return result;
  /* A merged image shows nothing without its sources. */
  if (image->source_count > 0) return INVALID;
  if (flags & MOUNT_VERIFIED && !image->sealed) return INVALID;
  if (flags & MOUNT_VERIFIED && !is_intact(image)) return FAILED_WITH(ERROR_CRC);
  if (verified) result = check_verified(image, hash_size, hash);
  return FAILED(result) ? result : show(volume, image, NULL, 0);
}

HRESULT WINAPI CimMountImage(const WCHAR *directory, const WCHAR *name, uint32_t flags, const GUID *volume) {
  Call call;
  begin(&call, "CimMountImage");
  arg_text(&call, "imagePath", directory);
  arg_text(&call, "fsName", name);
  arg_number(&call, "flags", flags);
  arg_guid(&call, "volume", volume);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, mount_one((ImagePath){directory, name}, flags, volume, false, 0, NULL));
}

HRESULT WINAPI CimMountVerifiedImage(const WCHAR *directory, const WCHAR *name, uint32_t flags, const GUID *volume,
                                     uint16_t hash_size, const uint8_t *hash) {
  Call call;
  begin(&call, "CimMountVerifiedImage");
  arg_text(&call, "imagePath", directory);
  arg_text(&call, "fsName", name);
  arg_number(&call, "flags", flags);
  arg_guid(&call, "volume", volume);
  arg_hex(&call, "hash", hash, hash_size);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, mount_one((ImagePath){directory, name}, flags, volume, true, hash_size, hash));
}

static HRESULT mount_merged(uint32_t count, const ImagePath *paths, uint32_t flags, const GUID *volume, bool verified,
                            uint16_t hash_size, const uint8_t *hash) {
  if (volume == NULL || paths == NULL || count < 3) return INVALID;
  if (flags & ~(2u | MOUNT_BLOCK_DEVICE | MOUNT_SINGLE_FILE) || !(flags & (MOUNT_BLOCK_DEVICE | MOUNT_SINGLE_FILE)))
    return INVALID;
  Image **images = allocate(count * sizeof *images);
  HRESULT result = S_OK;
  for (uint32_t at = 0; at < count && SUCCEEDED(result); at++) result = load_mounted(&paths[at], flags, &images[at]);
  if (SUCCEEDED(result) && images[0]->source_count != count - 1) result = INVALID;
  for (uint32_t at = 1; at < count && SUCCEEDED(result); at++)
    if (memcmp(images[0]->sources[at - 1].identity, images[at]->identity, 32) != 0) result = INVALID;
  if (SUCCEEDED(result) && verified) result = check_verified(images[0], hash_size, hash);
  if (SUCCEEDED(result)) result = show(volume, images[0], images + 1, count - 1);
  free(images);
  return result;
}

static void arg_paths(Call *call, uint32_t count, const ImagePath *paths) {
  put_text(&call->line, ",\"images\":[");
  for (uint32_t at = 0; paths != NULL && at < count; at++) {
    put_text(&call->line, at == 0 ? "[" : ",[");
    put_json(&call->line, paths[at].directory);
    put_text(&call->line, ",");
    put_json(&call->line, paths[at].name);
    put_text(&call->line, "]");
  }
  put_text(&call->line, "]");
}

HRESULT WINAPI CimMergeMountImage(uint32_t count, const ImagePath *paths, uint32_t flags, const GUID *volume) {
  Call call;
  begin(&call, "CimMergeMountImage");
  arg_number(&call, "flags", flags);
  arg_guid(&call, "volume", volume);
  arg_paths(&call, count, paths);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, mount_merged(count, paths, flags, volume, false, 0, NULL));
}

HRESULT WINAPI CimMergeMountVerifiedImage(uint32_t count, const ImagePath *paths, uint32_t flags, const GUID *volume,
                                          uint16_t hash_size, const uint8_t *hash) {
  Call call;
  begin(&call, "CimMergeMountVerifiedImage");
  arg_number(&call, "flags", flags);
  arg_guid(&call, "volume", volume);
  arg_paths(&call, count, paths);
  arg_hex(&call, "hash", hash, hash_size);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, mount_merged(count, paths, flags, volume, true, hash_size, hash));
}

static HRESULT dismount(const GUID *volume) {
  if (volume == NULL) return INVALID;
  WCHAR *directory = volume_directory(volume), *record = volume_record(L"volumes", volume, L".json");
  lock_world();
  HRESULT result = is_directory(directory) ? S_OK : FAILED_WITH(ERROR_NOT_FOUND);
  /* Under a filter, or a disk's: neither is dismounted like this. */
  if (SUCCEEDED(result) && (is_shown(volume) || !is_file(record))) result = FAILED_WITH(ERROR_BUSY);
  if (SUCCEEDED(result)) {
    DeleteFileW(record);
    if (!remove_tree(directory)) result = FAILED_WITH(ERROR_BUSY);
  }
  unlock_world();
  free(directory);
  free(record);
  return result;
}

HRESULT WINAPI CimDismountImage(const GUID *volume) {
  Call call;
  begin(&call, "CimDismountImage");
  arg_guid(&call, "volume", volume);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, dismount(volume));
}
