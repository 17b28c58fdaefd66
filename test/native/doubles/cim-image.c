#include "cim-image.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER = 72, BLOCK_HEADER = 4096, REGION_HEADER = 40 };

/* Four FNV-1a sums: tells changed bytes from unchanged ones, which is all a double needs. */
static void digest(uint8_t hash[32], const uint8_t *bytes, size_t count) {
  uint64_t sums[4] = {14695981039346656037ull, 1, 2, 3};
  for (size_t at = 0; at < count; at++)
    for (int lane = 0; lane < 4; lane++) sums[lane] = (sums[lane] ^ bytes[at]) * 1099511628211ull + lane;
  memcpy(hash, sums, 32);
}

Image *new_image(const WCHAR *directory, const WCHAR *name, bool block, uint32_t flags) {
  Image *image = allocate(sizeof *image);
  image->directory = copy_text(directory);
  image->name = copy_text(name);
  image->block = block;
  image->flags = flags;
  image->root = allocate(sizeof(Node));
  image->root->name = copy_text(L"");
  image->next_id = 1;
  image->root->file = new_file(image);
  image->root->file->attributes = FILE_ATTRIBUTE_DIRECTORY;
  image->data_end = block ? BLOCK_HEADER : REGION_HEADER;
  return image;
}

File *new_file(Image *image) {
  File *file = allocate(sizeof *file);
  file->id = image->next_id++;
  file->next = image->files;
  file->data.image = image;
  image->files = file;
  return file;
}

bool is_folder(const Node *node) {
  return node->file != NULL && (node->file->attributes & FILE_ATTRIBUTE_DIRECTORY);
}

Node *child_of(Node *directory, const WCHAR *name) {
  for (Node *child = directory->children; child != NULL; child = child->next)
    if (_wcsicmp(child->name, name) == 0) return child;
  return NULL;
}

Node *find_node(Image *image, const WCHAR *path) {
  Node *node = image->root;
  WCHAR *copy = copy_text(path), *state;
  for (WCHAR *name = wcstok_s(copy, L"\\", &state); name != NULL && node != NULL; name = wcstok_s(NULL, L"\\", &state))
    node = child_of(node, name);
  free(copy);
  return node;
}

Node *make_node(Image *image, const WCHAR *path) {
  WCHAR *above = copy_text(path), *name = wcsrchr(above, '\\');
  Node *parent = image->root;
  if (name != NULL) {
    *name++ = 0;
    parent = find_node(image, above);
  } else {
    name = above;
  }
  Node *node = NULL;
  if (parent == NULL || !is_folder(parent)) {
    SetLastError(ERROR_PATH_NOT_FOUND);
  } else if ((node = child_of(parent, name)) == NULL) {
    node = allocate(sizeof *node);
    node->name = copy_text(name);
    node->parent = parent;
    Node **place = &parent->children;
    while (*place != NULL && _wcsicmp((*place)->name, name) < 0) place = &(*place)->next;
    node->next = *place;
    *place = node;
  }
  free(above);
  return node;
}

void unlink_node(Node *node) {
  for (Node **place = &node->parent->children; *place != NULL; place = &(*place)->next) {
    if (*place != node) continue;
    *place = node->next;
    return;
  }
}

/* --- on disk --- */

static WCHAR *cim_path(const Image *image) {
  return image->block ? copy_text(image->directory) : join_path(image->directory, image->name);
}

static WCHAR *region_path(const Image *image, uint32_t region, const WCHAR *kind) {
  if (image->block) return copy_text(image->directory);
  WCHAR guid[39], name[80];
  guid_text(&image->regions[region], guid);
  swprintf(name, 80, L"%ls_%.36ls_0", kind, guid + 1);
  return join_path(image->directory, name);
}

static void put32(Buffer *buffer, uint32_t value) {
  put_bytes(buffer, &value, sizeof value);
}

static void put64(Buffer *buffer, uint64_t value) {
  put_bytes(buffer, &value, sizeof value);
}

static void put_blob(Buffer *buffer, Blob blob) {
  put32(buffer, blob.size);
  put_bytes(buffer, blob.bytes, blob.size);
}

static void put_name(Buffer *buffer, const WCHAR *text) {
  uint32_t size = text == NULL ? 0 : (uint32_t)(wcslen(text) + 1) * sizeof *text;
  put_blob(buffer, (Blob){size, (uint8_t *)text});
}

static void put_header(Buffer *buffer, uint32_t length, uint8_t type) {
  const uint8_t kind[4] = {type};
  put_text(buffer, "cimfile0");
  put32(buffer, length);
  put_bytes(buffer, kind, sizeof kind);
  put32(buffer, 3);
  put32(buffer, 0);
  put64(buffer, 0);
}

static void put_stream(Buffer *buffer, const Stream *stream) {
  put_name(buffer, stream->name);
  put64(buffer, stream->size);
  put64(buffer, stream->offset);
  put32(buffer, stream->region);
}

static void put_file(Buffer *buffer, const File *file) {
  put32(buffer, file->id);
  put32(buffer, file->attributes);
  put_bytes(buffer, file->times, sizeof file->times);
  put_blob(buffer, file->security);
  put_blob(buffer, file->reparse);
  put_blob(buffer, file->attributes_extended);
  put_stream(buffer, &file->data);
  uint32_t count = 0;
  for (const Stream *stream = file->streams; stream != NULL; stream = stream->next) count++;
  put32(buffer, count);
  for (const Stream *stream = file->streams; stream != NULL; stream = stream->next) put_stream(buffer, stream);
}

static void put_node(Buffer *buffer, const Node *node) {
  put_name(buffer, node->name);
  put_name(buffer, node->merge_link);
  put32(buffer, node->file == NULL ? 0 : node->file->id);
  uint32_t count = 0;
  for (const Node *child = node->children; child != NULL; child = child->next) count++;
  put32(buffer, count);
  for (const Node *child = node->children; child != NULL; child = child->next) put_node(buffer, child);
}

static void put_body(Buffer *buffer, const Image *image) {
  /* A forked image is called as its file is. */
  put_name(buffer, image->block ? image->name : NULL);
  put32(buffer, image->next_id);
  uint32_t count = 0;
  for (const File *file = image->files; file != NULL; file = file->next) count++;
  put32(buffer, count);
  for (const File *file = image->files; file != NULL; file = file->next) put_file(buffer, file);
  put_node(buffer, image->root);
  put32(buffer, image->source_count);
  for (uint32_t at = 0; at < image->source_count; at++) {
    put_name(buffer, image->sources[at].path);
    put_bytes(buffer, image->sources[at].identity, 32);
  }
}

static HRESULT write_at(const WCHAR *path, DWORD disposition, uint64_t offset, const void *bytes, size_t size) {
  HANDLE file = CreateFileW(path, GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, disposition,
                            FILE_ATTRIBUTE_NORMAL, NULL);
  if (file == INVALID_HANDLE_VALUE) return FAILED_WITH(GetLastError());
  LARGE_INTEGER place = {.QuadPart = (LONGLONG)offset};
  DWORD put;
  bool written = SetFilePointerEx(file, place, NULL, FILE_BEGIN) && WriteFile(file, bytes, (DWORD)size, &put, NULL) &&
                 put == size;
  HRESULT result = written ? S_OK : FAILED_WITH(GetLastError());
  CloseHandle(file);
  return result;
}

static HRESULT save_block_header(const Image *image, uint64_t length, DWORD disposition) {
  Buffer header = {0};
  put_header(&header, BLOCK_HEADER, 0);
  put64(&header, image->data_end);
  put64(&header, length);
  put32(&header, image->flags);
  put32(&header, image->sealed);
  put_bytes(&header, image->root_hash, 32);
  uint8_t padding[BLOCK_HEADER] = {0};
  put_bytes(&header, padding, BLOCK_HEADER - header.length);
  WCHAR *path = cim_path(image);
  HRESULT result = write_at(path, disposition, 0, header.text, header.length);
  free(path);
  free(header.text);
  return result;
}

HRESULT open_region(Image *image) {
  if (image->block) return save_block_header(image, 0, CREATE_NEW);
  image->regions = realloc(image->regions, (image->region_count + 1) * sizeof(GUID));
  LARGE_INTEGER ticks;
  QueryPerformanceCounter(&ticks);
  struct { LONGLONG ticks; DWORD process; const void *image; } unique = {ticks.QuadPart, GetCurrentProcessId(), image};
  uint8_t hash[32];
  digest(hash, (uint8_t *)&unique, sizeof unique);
  memcpy(&image->regions[image->region_count++], hash, sizeof(GUID));
  HRESULT result = S_OK;
  for (uint8_t type = 1; type <= 2 && SUCCEEDED(result); type++) {
    Buffer header = {0};
    put_header(&header, REGION_HEADER, type);
    put64(&header, 0);
    WCHAR *path = region_path(image, image->region_count - 1, type == 1 ? L"region" : L"objectid");
    result = write_at(path, CREATE_NEW, 0, header.text, header.length);
    free(path);
    free(header.text);
  }
  return result;
}

HRESULT save_image(Image *image) {
  Buffer bytes = {0};
  HRESULT result;
  WCHAR *path = cim_path(image);
  if (image->block) {
    put_body(&bytes, image);
    result = write_at(path, OPEN_EXISTING, image->data_end, bytes.text, bytes.length);
    if (SUCCEEDED(result)) result = save_block_header(image, bytes.length, OPEN_EXISTING);
  } else {
    const uint16_t counts[4] = {1, 0, 0, 0}, parents[2] = {0, (uint16_t)(image->region_count - 1)};
    put_header(&bytes, HEADER, 0);
    put_bytes(&bytes, &image->regions[image->region_count - 1], sizeof(GUID));
    put_bytes(&bytes, counts, sizeof counts);
    put64(&bytes, REGION_HEADER);
    put32(&bytes, 0);
    put_bytes(&bytes, parents, sizeof parents);
    for (uint32_t at = 0; at + 1 < image->region_count; at++) {
      put_bytes(&bytes, &image->regions[at], sizeof(GUID));
      put_bytes(&bytes, counts, sizeof counts);
    }
    put_body(&bytes, image);
    result = write_whole(path, bytes.text, bytes.length) ? S_OK : FAILED_WITH(GetLastError());
  }
  free(path);
  free(bytes.text);
  return result;
}

/* --- and back; a body cut short or changed reads as zeros and is refused at the end --- */

typedef struct {
  const uint8_t *at, *end;
  bool broken;
} Input;

static void take(Input *input, void *bytes, size_t count) {
  if ((size_t)(input->end - input->at) < count) {
    memset(bytes, 0, count);
    input->broken = true;
    return;
  }
  memcpy(bytes, input->at, count);
  input->at += count;
}

static uint32_t take32(Input *input) {
  uint32_t value;
  take(input, &value, sizeof value);
  return value;
}

static uint64_t take64(Input *input) {
  uint64_t value;
  take(input, &value, sizeof value);
  return value;
}

static Blob take_blob(Input *input) {
  Blob blob = {take32(input), NULL};
  if (blob.size > (size_t)(input->end - input->at)) {
    input->broken = true;
    return (Blob){0};
  }
  if (blob.size > 0) take(input, blob.bytes = allocate(blob.size), blob.size);
  return blob;
}

static WCHAR *take_name(Input *input) {
  return (WCHAR *)take_blob(input).bytes;
}

static void take_stream(Input *input, Stream *stream, Image *image) {
  stream->name = take_name(input);
  stream->size = take64(input);
  stream->offset = take64(input);
  stream->region = take32(input);
  stream->image = image;
}

static void take_file(Input *input, Image *image) {
  File *file = new_file(image);
  file->id = take32(input);
  file->attributes = take32(input);
  take(input, file->times, sizeof file->times);
  file->security = take_blob(input);
  file->reparse = take_blob(input);
  file->attributes_extended = take_blob(input);
  take_stream(input, &file->data, image);
  Stream **place = &file->streams;
  for (uint32_t left = take32(input); left > 0 && !input->broken; left--, place = &(*place)->next)
    take_stream(input, *place = allocate(sizeof **place), image);
}

static Node *take_node(Input *input, Image *image, Node *parent) {
  Node *node = allocate(sizeof *node);
  node->parent = parent;
  node->name = take_name(input);
  node->merge_link = take_name(input);
  uint32_t id = take32(input);
  for (File *file = image->files; file != NULL && id != 0; file = file->next)
    if (file->id == id) node->file = file;
  if (node->name == NULL) node->name = copy_text(L"");
  Node **place = &node->children;
  for (uint32_t left = take32(input); left > 0 && !input->broken; left--, place = &(*place)->next)
    *place = take_node(input, image, node);
  return node;
}

static bool take_body(Input *input, Image *image) {
  WCHAR *name = take_name(input);
  uint32_t next_id = take32(input);
  image->files = NULL;
  for (uint32_t left = take32(input); left > 0 && !input->broken; left--) take_file(input, image);
  image->root = take_node(input, image, NULL);
  image->next_id = next_id;
  image->source_count = take32(input);
  if (input->broken || image->root->file == NULL) return false;
  image->sources = allocate(image->source_count * sizeof(Source));
  for (uint32_t at = 0; at < image->source_count; at++) {
    image->sources[at].path = take_name(input);
    take(input, image->sources[at].identity, 32);
  }
  return !input->broken && (!image->block || (name != NULL && (image->name[0] == 0 || wcscmp(name, image->name) == 0)));
}

static bool take_header(Input *input) {
  char magic[8];
  uint8_t kind[8];
  take(input, magic, sizeof magic);
  take(input, kind, sizeof kind);
  uint32_t major = take32(input);
  take32(input);
  take64(input);
  return !input->broken && memcmp(magic, "cimfile0", 8) == 0 && kind[4] == 0 && (major == 2 || major == 3);
}

static bool load_block(Input *input, Image *image, const uint8_t *bytes, size_t size) {
  image->data_end = take64(input);
  uint64_t length = take64(input);
  image->flags = take32(input);
  image->sealed = take32(input) != 0;
  take(input, image->root_hash, 32);
  if (length == 0 || image->data_end > size || length > size - image->data_end) return false;
  digest(image->identity, bytes + BLOCK_HEADER, image->data_end + length - BLOCK_HEADER);
  *input = (Input){bytes + image->data_end, bytes + image->data_end + length, false};
  return true;
}

static bool load_regions(Input *input, Image *image) {
  GUID own;
  uint64_t counts;
  uint16_t parents[2];
  take(input, &own, sizeof own);
  take64(input);
  take64(input);
  take32(input);
  take(input, parents, sizeof parents);
  image->regions = allocate((parents[1] + 1) * sizeof(GUID));
  for (int at = 0; at < parents[1]; at++) {
    take(input, &image->regions[at], sizeof(GUID));
    take(input, &counts, sizeof counts);
  }
  image->regions[parents[1]] = own;
  image->region_count = parents[1] + 1;
  return !input->broken;
}

HRESULT load_image(const WCHAR *directory, const WCHAR *name, bool block, Image **loaded) {
  Image *image = new_image(directory, name, block, 0);
  WCHAR *path = cim_path(image);
  size_t size = 0;
  uint8_t *bytes = read_whole(path, &size);
  DWORD error = GetLastError();
  free(path);
  if (bytes == NULL) return FAILED_WITH(error);
  Input input = {bytes, bytes + size, false};
  bool good = take_header(&input) &&
              (block ? load_block(&input, image, bytes, size) : load_regions(&input, image)) &&
              take_body(&input, image);
  free(bytes);
  if (!good) return FAILED_WITH(ERROR_FILE_CORRUPT);
  for (uint32_t region = 0; region < image->region_count; region++) {
    WCHAR *file = region_path(image, region, L"region");
    bool there = is_file(file);
    free(file);
    if (!there) return FAILED_WITH(ERROR_FILE_NOT_FOUND);
  }
  *loaded = image;
  return S_OK;
}

HRESULT seal_image(Image *image) {
  memcpy(image->root_hash, image->identity, 32);
  image->sealed = 1;
  WCHAR *path = cim_path(image);
  Buffer header = {0};
  put32(&header, 1);
  put_bytes(&header, image->root_hash, 32);
  HRESULT result = write_at(path, OPEN_EXISTING, 32 + 8 + 8 + 4, header.text, header.length);
  free(header.text);
  free(path);
  return result;
}

bool is_intact(Image *image) {
  return memcmp(image->root_hash, image->identity, 32) == 0;
}

HANDLE open_data(const Stream *stream, DWORD access) {
  WCHAR *path = region_path(stream->image, stream->region, L"region");
  HANDLE file = CreateFileW(path, access, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_EXISTING, 0, NULL);
  free(path);
  return file;
}
