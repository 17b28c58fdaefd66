/*
 * Contract doubles of cimfs.dll's writing half, which cimwriter.dll has as well; cim-mount.c is the other.
 * Contract: hcsshim internal/winapi/cimfs and pkg/cimfs. Where that leaves the code of an error open, a likely one is
 * returned: callers may rely on the refusal, not on its number.
 */
#include "cim-image.h"
#include <stdlib.h>
#include <string.h>

enum { MERGE_SINGLE_FILE = 1, MERGE_BLOCK_DEVICE = 2, MERGE_VERIFIED = 4 };
enum { FIXED_HEADER_SIZE = 4096, MAX_HANDLES = 64 };

typedef struct {
  uint32_t attributes;
  int64_t size;
  int64_t times[4];
  const void *security;
  uint32_t security_size;
  const void *reparse;
  uint32_t reparse_size;
  const void *extended_attributes;
  uint32_t extended_attributes_size;
} Metadata;

_Static_assert(sizeof(Metadata) == 96, "CIMFS_FILE_METADATA");

/* Handles are numbers never given twice, so that use after close is noticed. */
typedef struct {
  uint64_t number;
  Image *image;
  /* Images only: a stream was closed before all of it was written. */
  bool broken, forked;
  /* Streams only. */
  Stream *stream;
  uint64_t written, owner;
} Handle;

static Handle handles[MAX_HANDLES];
static uint64_t last_number = 0x1000;

static Handle *find_handle(uint64_t number, bool stream) {
  for (Handle *handle = handles; number != 0 && handle < handles + MAX_HANDLES; handle++)
    if (handle->number == number && (handle->stream != NULL) == stream) return handle;
  return NULL;
}

/* Images may be written by several threads, each of them by one. */
static SRWLOCK adding = SRWLOCK_INIT;

static Handle *add_handle(Image *image, Stream *stream, uint64_t owner) {
  AcquireSRWLockExclusive(&adding);
  Handle *handle = handles;
  while (handle < handles + MAX_HANDLES && handle->number != 0) handle++;
  if (handle == handles + MAX_HANDLES) abort();
  last_number += 0x10;
  *handle = (Handle){.number = last_number, .image = image, .stream = stream, .owner = owner};
  ReleaseSRWLockExclusive(&adding);
  return handle;
}

/* Relative, with single backslashes, none of them last. Directories' own attributes go to the root, which is "". */
static bool is_inner_path(const WCHAR *path, bool may_be_root) {
  if (path == NULL || (*path == 0 && !may_be_root)) return false;
  return *path != '\\' && !ends_in_backslash(path) && wcsstr(path, L"\\\\") == NULL && wcspbrk(path, L"/:*?\"<>|") == NULL;
}

static HRESULT to_write(uint64_t number, const WCHAR *path, bool may_be_root, Handle **found) {
  Handle *handle = find_handle(number, false);
  if (handle == NULL) return E_HANDLE;
  if (handle->broken) return INVALID;
  if (!is_inner_path(path, may_be_root)) return FAILED_WITH(ERROR_INVALID_NAME);
  *found = handle;
  return S_OK;
}

/* --- writing --- */

static HRESULT create_image(const WCHAR *path, uint32_t flags, const WCHAR *old, const WCHAR *new, uint64_t *out) {
  bool block = (flags & (CREATE_BLOCK_DEVICE | CREATE_SINGLE_FILE)) != 0;
  if (path == NULL || out == NULL || (old == NULL && new == NULL)) return INVALID;
  if ((flags & ~0x5fu) || (flags & CREATE_BLOCK_DEVICE && flags & CREATE_SINGLE_FILE)) return INVALID;
  if (flags & CREATE_VERIFIED && !block) return INVALID;
  if (ends_in_backslash(path)) return FAILED_WITH(ERROR_INVALID_NAME);
  if (block && (old != NULL || new == NULL)) return INVALID;
  if (!block && !is_directory(path)) return FAILED_WITH(ERROR_PATH_NOT_FOUND);
  Image *image = NULL;
  if (old != NULL) {
    HRESULT loaded = load_image(path, old, false, &image);
    if (FAILED(loaded)) return loaded;
    if (new != NULL) image->name = copy_text(new);
  } else {
    image = new_image(path, new, block, flags);
  }
  WCHAR *file = block ? copy_text(path) : join_path(path, image->name);
  bool taken = new != NULL && is_file(file);
  free(file);
  if (taken) return FAILED_WITH(ERROR_FILE_EXISTS);
  HRESULT opened = open_region(image);
  if (FAILED(opened)) return opened;
  Handle *handle = add_handle(image, NULL, 0);
  handle->forked = old != NULL;
  *out = handle->number;
  return S_OK;
}

HRESULT WINAPI CimCreateImage(const WCHAR *path, const WCHAR *old, const WCHAR *new, uint64_t *out) {
  Call call;
  begin(&call, "CimCreateImage");
  arg_text(&call, "imagePath", path);
  arg_text(&call, "oldFSName", old);
  arg_text(&call, "newFSName", new);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, create_image(path, 0, old, new, out));
}

HRESULT WINAPI CimCreateImage2(const WCHAR *path, uint32_t flags, const WCHAR *old, const WCHAR *new, uint64_t *out) {
  Call call;
  begin(&call, "CimCreateImage2");
  arg_text(&call, "imagePath", path);
  arg_number(&call, "flags", flags);
  arg_text(&call, "oldFSName", old);
  arg_text(&call, "newFSName", new);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, create_image(path, flags, old, new, out));
}

/* Nothing is kept of an image that wasn't committed but its region files. */
void WINAPI CimCloseImage(uint64_t image) {
  Call call;
  begin(&call, "CimCloseImage");
  arg_number(&call, "image", image);
  enter(&call);
  Handle *handle = find_handle(image, false);
  HRESULT result = handle == NULL ? E_HANDLE : S_OK;
  if (handle != NULL) handle->number = 0;
  for (Handle *stream = handles; stream < handles + MAX_HANDLES; stream++)
    if (stream->number != 0 && stream->owner == image) {
      stream->number = 0;
      /* Its streams are to be closed first. Nobody is told, so that tests look into the log. */
      result = INVALID;
    }
  leave(&call, result);
}

static HRESULT commit_image(uint64_t number) {
  Handle *handle = find_handle(number, false);
  if (handle == NULL) return E_HANDLE;
  for (Handle *stream = handles; stream < handles + MAX_HANDLES; stream++)
    if (stream->number != 0 && stream->owner == number) return INVALID;
  if (handle->broken || handle->image->source_count == 1) return INVALID;
  return save_image(handle->image);
}

HRESULT WINAPI CimCommitImage(uint64_t image) {
  Call call;
  begin(&call, "CimCommitImage");
  arg_number(&call, "image", image);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, commit_image(image));
}

static Blob copy_blob(const void *bytes, uint32_t size) {
  Blob blob = {size, NULL};
  if (size > 0) blob.bytes = memcpy(allocate(size), bytes, size);
  return blob;
}

/* Room in the image is taken when a stream is made: what is written later can't move others' data. */
static uint64_t open_stream(Handle *owner, Stream *stream, uint64_t size) {
  Image *image = owner->image;
  stream->image = image;
  stream->size = size;
  stream->region = image->block ? 0 : image->region_count - 1;
  stream->offset = image->data_end;
  image->data_end += size;
  return add_handle(image, stream, owner->number)->number;
}

static HRESULT create_file(uint64_t image, const WCHAR *path, const Metadata *metadata, uint64_t *out) {
  Handle *handle;
  HRESULT allowed = to_write(image, path, true, &handle);
  if (FAILED(allowed)) return allowed;
  if (metadata == NULL || out == NULL || metadata->size < 0 || handle->image->source_count > 0) return INVALID;
  if ((metadata->security_size > 0 && metadata->security == NULL) ||
      (metadata->reparse_size > 0 && metadata->reparse == NULL) ||
      (metadata->extended_attributes_size > 0 && metadata->extended_attributes == NULL))
    return INVALID;
  bool folder = (metadata->attributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
  bool reparse = (metadata->attributes & FILE_ATTRIBUTE_REPARSE_POINT) != 0;
  if (reparse != (metadata->reparse_size > 0) || (folder && metadata->size != 0)) return INVALID;
  Node *node = *path ? make_node(handle->image, path) : handle->image->root;
  if (node == NULL) return FAILED_WITH(GetLastError());
  if (node->file != NULL && is_folder(node) != folder) return FAILED_WITH(ERROR_ALREADY_EXISTS);
  File *file = new_file(handle->image);
  file->attributes = metadata->attributes;
  memcpy(file->times, metadata->times, sizeof file->times);
  file->security = copy_blob(metadata->security, metadata->security_size);
  file->reparse = copy_blob(metadata->reparse, metadata->reparse_size);
  file->attributes_extended = copy_blob(metadata->extended_attributes, metadata->extended_attributes_size);
  node->file = file;
  node->merge_link = NULL;
  *out = open_stream(handle, &file->data, (uint64_t)metadata->size);
  return S_OK;
}

HRESULT WINAPI CimCreateFile(uint64_t image, const WCHAR *path, const Metadata *metadata, uint64_t *out) {
  Call call;
  begin(&call, "CimCreateFile");
  arg_text(&call, "path", path);
  if (metadata != NULL) {
    arg_number(&call, "attributes", metadata->attributes);
    arg_number(&call, "size", (uint64_t)metadata->size);
  }
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, create_file(image, path, metadata, out));
}

static HRESULT create_alternate_stream(uint64_t image, const WCHAR *path, uint64_t size, uint64_t *out) {
  Handle *handle = find_handle(image, false);
  if (handle == NULL) return E_HANDLE;
  if (handle->broken || path == NULL || out == NULL) return INVALID;
  WCHAR *file = copy_text(path), *name = wcschr(file, ':');
  if (name != NULL) *name++ = 0;
  WCHAR *type = name == NULL ? NULL : wcschr(name, ':');
  /* The type is part of the name that the API takes. */
  if (type == NULL || type == name || _wcsicmp(type, L":$DATA") != 0) return FAILED_WITH(ERROR_INVALID_NAME);
  *type = 0;
  Node *node = find_node(handle->image, file);
  if (node == NULL || node->file == NULL) return FAILED_WITH(ERROR_FILE_NOT_FOUND);
  for (Stream *other = node->file->streams; other != NULL; other = other->next)
    if (_wcsicmp(other->name, name) == 0) return FAILED_WITH(ERROR_ALREADY_EXISTS);
  Stream **place = &node->file->streams;
  while (*place != NULL) place = &(*place)->next;
  *place = allocate(sizeof **place);
  (*place)->name = name;
  *out = open_stream(handle, *place, size);
  return S_OK;
}

HRESULT WINAPI CimCreateAlternateStream(uint64_t image, const WCHAR *path, uint64_t size, uint64_t *out) {
  Call call;
  begin(&call, "CimCreateAlternateStream");
  arg_text(&call, "path", path);
  arg_number(&call, "size", size);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, create_alternate_stream(image, path, size, out));
}

static HRESULT write_stream(uint64_t number, const void *bytes, uint32_t count) {
  Handle *handle = find_handle(number, true);
  if (handle == NULL) return E_HANDLE;
  if (bytes == NULL || count > handle->stream->size - handle->written) return INVALID;
  HANDLE file = open_data(handle->stream, GENERIC_WRITE);
  if (file == INVALID_HANDLE_VALUE) return FAILED_WITH(GetLastError());
  LARGE_INTEGER place = {.QuadPart = (LONGLONG)(handle->stream->offset + handle->written)};
  DWORD put;
  bool written = SetFilePointerEx(file, place, NULL, FILE_BEGIN) && WriteFile(file, bytes, count, &put, NULL);
  HRESULT result = written ? S_OK : FAILED_WITH(GetLastError());
  CloseHandle(file);
  if (written) handle->written += count;
  return result;
}

HRESULT WINAPI CimWriteStream(uint64_t stream, const void *bytes, uint32_t count) {
  Call call;
  begin(&call, "CimWriteStream");
  arg_number(&call, "count", count);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, write_stream(stream, bytes, count));
}

/* Closing what isn't whole is allowed; the image then takes nothing more (hcsshim's closeStream says so). */
static HRESULT close_stream(uint64_t number) {
  Handle *handle = find_handle(number, true);
  if (handle == NULL) return E_HANDLE;
  if (handle->written != handle->stream->size) find_handle(handle->owner, false)->broken = true;
  handle->number = 0;
  return S_OK;
}

HRESULT WINAPI CimCloseStream(uint64_t stream) {
  Call call;
  begin(&call, "CimCloseStream");
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, close_stream(stream));
}

static HRESULT delete_path(uint64_t image, const WCHAR *path) {
  Handle *handle;
  HRESULT allowed = to_write(image, path, false, &handle);
  if (FAILED(allowed)) return allowed;
  Node *node = find_node(handle->image, path);
  if (node == NULL) return FAILED_WITH(ERROR_FILE_NOT_FOUND);
  unlink_node(node);
  return S_OK;
}

HRESULT WINAPI CimDeletePath(uint64_t image, const WCHAR *path) {
  Call call;
  begin(&call, "CimDeletePath");
  arg_text(&call, "path", path);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, delete_path(image, path));
}

static HRESULT create_hard_link(uint64_t image, const WCHAR *new, const WCHAR *old) {
  Handle *handle;
  HRESULT allowed = to_write(image, new, false, &handle);
  if (SUCCEEDED(allowed)) allowed = to_write(image, old, false, &handle);
  if (FAILED(allowed)) return allowed;
  Node *target = find_node(handle->image, old);
  if (target == NULL || target->file == NULL) return FAILED_WITH(ERROR_FILE_NOT_FOUND);
  if (is_folder(target)) return FAILED_WITH(ERROR_ACCESS_DENIED);
  Node *node = make_node(handle->image, new);
  if (node == NULL) return FAILED_WITH(GetLastError());
  if (node->file != NULL) return FAILED_WITH(ERROR_ALREADY_EXISTS);
  node->file = target->file;
  return S_OK;
}

HRESULT WINAPI CimCreateHardLink(uint64_t image, const WCHAR *new, const WCHAR *old) {
  Call call;
  begin(&call, "CimCreateHardLink");
  arg_text(&call, "newPath", new);
  arg_text(&call, "oldPath", old);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, create_hard_link(image, new, old));
}

static HRESULT create_marker(uint64_t image, const WCHAR *path, const WCHAR *link) {
  Handle *handle;
  HRESULT allowed = to_write(image, path, false, &handle);
  if (FAILED(allowed)) return allowed;
  if (!handle->image->block || handle->image->source_count > 0) return INVALID;
  if (link != NULL && !is_inner_path(link, false)) return FAILED_WITH(ERROR_INVALID_NAME);
  Node *node = make_node(handle->image, path);
  if (node == NULL) return FAILED_WITH(GetLastError());
  if (node->file != NULL || node->merge_link != NULL) return FAILED_WITH(ERROR_ALREADY_EXISTS);
  node->merge_link = link == NULL ? NULL : copy_text(link);
  return S_OK;
}

HRESULT WINAPI CimCreateMergeLink(uint64_t image, const WCHAR *new, const WCHAR *old) {
  Call call;
  begin(&call, "CimCreateMergeLink");
  arg_text(&call, "newPath", new);
  arg_text(&call, "oldPath", old);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, old == NULL ? INVALID : create_marker(image, new, old));
}

HRESULT WINAPI CimTombstoneFile(uint64_t image, const WCHAR *path) {
  Call call;
  begin(&call, "CimTombstoneFile");
  arg_text(&call, "path", path);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, create_marker(image, path, NULL));
}

/* --- merging and sealing --- */

static HRESULT load_block(const WCHAR *path, Image **image) {
  WCHAR *file = copy_text(path), *name = wcsrchr(file, '\\');
  if (name == NULL || name[1] == 0) return FAILED_WITH(ERROR_INVALID_NAME);
  *name++ = 0;
  HRESULT loaded = load_image(file, name, true, image);
  free(file);
  return loaded;
}

static HRESULT add_source(uint64_t number, const WCHAR *path, uint32_t flags) {
  Handle *handle = find_handle(number, false);
  if (handle == NULL) return E_HANDLE;
  Image *merged = handle->image, *source;
  uint32_t type = flags & (MERGE_SINGLE_FILE | MERGE_BLOCK_DEVICE);
  uint32_t created = merged->flags & CREATE_SINGLE_FILE ? MERGE_SINGLE_FILE : MERGE_BLOCK_DEVICE;
  if (path == NULL || !merged->block || merged->root->children != NULL) return INVALID;
  if (flags & ~7u || type != created || !(flags & MERGE_VERIFIED) != !(merged->flags & CREATE_VERIFIED)) return INVALID;
  HRESULT loaded = load_block(path, &source);
  if (FAILED(loaded)) return loaded;
  uint32_t kind = CREATE_SINGLE_FILE | CREATE_BLOCK_DEVICE;
  if (source->source_count > 0 || (source->flags & kind) != (merged->flags & kind)) return INVALID;
  if (merged->source_count > 0 && merged->source_sealed != source->sealed) return INVALID;
  if (flags & MERGE_VERIFIED && !source->sealed) return INVALID;
  merged->source_sealed = source->sealed;
  merged->sources = realloc(merged->sources, (merged->source_count + 1) * sizeof(Source));
  Source *added = &merged->sources[merged->source_count++];
  added->path = copy_text(source->name);
  memcpy(added->identity, source->identity, 32);
  return S_OK;
}

HRESULT WINAPI CimAddFsToMergedImage2(uint64_t image, const WCHAR *path, uint32_t flags) {
  Call call;
  begin(&call, "CimAddFsToMergedImage2");
  arg_text(&call, "path", path);
  arg_number(&call, "flags", flags);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, add_source(image, path, flags));
}

HRESULT WINAPI CimAddFsToMergedImage(uint64_t image, const WCHAR *path) {
  Call call;
  begin(&call, "CimAddFsToMergedImage");
  arg_text(&call, "path", path);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, add_source(image, path, MERGE_BLOCK_DEVICE));
}

/* An image's name is inside it; the calls about a block path alone mean whatever image is in it. */
static HRESULT load_any(const WCHAR *path, Image **image) {
  if (path == NULL) return INVALID;
  if (ends_in_backslash(path)) return FAILED_WITH(ERROR_INVALID_NAME);
  return load_image(path, L"", true, image);
}

static HRESULT seal(const WCHAR *path, uint64_t *hash_size, uint64_t *header_size, uint8_t *hash) {
  Image *image;
  HRESULT loaded = load_any(path, &image);
  if (FAILED(loaded)) return loaded;
  if (!(image->flags & CREATE_VERIFIED) || image->sealed || hash_size == NULL || header_size == NULL || hash == NULL)
    return INVALID;
  HRESULT sealed = seal_image(image);
  if (FAILED(sealed)) return sealed;
  *hash_size = HASH_SIZE;
  *header_size = FIXED_HEADER_SIZE;
  memcpy(hash, image->root_hash, HASH_SIZE);
  return S_OK;
}

HRESULT WINAPI CimSealImage(const WCHAR *path, uint64_t *hash_size, uint64_t *header_size, uint8_t *hash) {
  Call call;
  begin(&call, "CimSealImage");
  arg_text(&call, "blockCimPath", path);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, seal(path, hash_size, header_size, hash));
}

HRESULT WINAPI CimGetVerificationInformation(const WCHAR *path, uint32_t *sealed, uint64_t *hash_size,
                                             uint64_t *signature_size, uint64_t *header_size, uint8_t *hash,
                                             uint8_t *signature) {
  Call call;
  begin(&call, "CimGetVerificationInformation");
  arg_text(&call, "blockCimPath", path);
  if (!enter(&call)) return leave(&call, call.failure);
  (void)signature;
  Image *image;
  HRESULT loaded = load_any(path, &image);
  if (FAILED(loaded)) return leave(&call, loaded);
  *sealed = image->sealed;
  *hash_size = image->sealed ? HASH_SIZE : 0;
  *signature_size = 0;
  *header_size = image->sealed ? FIXED_HEADER_SIZE : 0;
  if (image->sealed && hash != NULL) memcpy(hash, image->root_hash, HASH_SIZE);
  return leave(&call, S_OK);
}
