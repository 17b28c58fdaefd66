#include "streams.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DATA = 1, ALTERNATE_DATA = 4, SPARSE_BLOCK = 9, HEADER = 20 };

typedef struct {
  uint32_t id;
  uint64_t size;
  uint32_t name_size;
  /* Of the whole stream, header and name included, and of its bytes. */
  const uint8_t *start, *name, *bytes;
  size_t total;
} Stream;

/* 1, or 0 at the end, or -1 for what is no stream. */
static int next_stream(const uint8_t *all, size_t size, size_t *at, Stream *stream) {
  if (*at == size) return 0;
  if (size - *at < HEADER) return -1;
  const uint8_t *start = all + *at;
  memcpy(&stream->id, start, 4);
  memcpy(&stream->size, start + 8, 8);
  memcpy(&stream->name_size, start + 16, 4);
  if (stream->id == 0 || stream->id > 11 || stream->name_size > 1024 || (stream->name_size > 0) != (stream->id == ALTERNATE_DATA))
    return -1;
  stream->start = start;
  stream->name = start + HEADER;
  stream->bytes = stream->name + stream->name_size;
  size_t left = size - *at - HEADER;
  if (left < stream->name_size || left - stream->name_size < stream->size) return -1;
  stream->total = HEADER + stream->name_size + stream->size;
  *at += stream->total;
  return 1;
}

static WCHAR *record_of(HANDLE file) {
  BY_HANDLE_FILE_INFORMATION information;
  if (!GetFileInformationByHandle(file, &information)) return NULL;
  WCHAR path[80];
  swprintf(path, 80, L"C:\\doubles\\streams\\%08lx%08lx", information.nFileIndexHigh, information.nFileIndexLow);
  return copy_text(path);
}

static bool same_stream(const Stream *one, const Stream *other) {
  return one->id == other->id && one->name_size == other->name_size && memcmp(one->name, other->name, one->name_size) == 0;
}

/* The kept streams, without those that the new ones replace. */
static void keep(const uint8_t *kept, size_t kept_size, const Stream *with, Buffer *result) {
  Stream stream;
  size_t at = 0;
  while (next_stream(kept, kept_size, &at, &stream) > 0)
    if (!same_stream(&stream, with)) put_bytes(result, stream.start, stream.total);
  put_bytes(result, with->start, with->total);
}

static DWORD write_at(HANDLE file, uint64_t offset, const uint8_t *bytes, size_t size) {
  LARGE_INTEGER place = {.QuadPart = (LONGLONG)offset};
  DWORD put;
  if (!SetFilePointerEx(file, place, NULL, FILE_BEGIN)) return GetLastError();
  return WriteFile(file, bytes, (DWORD)size, &put, NULL) && put == size ? 0 : ERROR_DISK_FULL;
}

static DWORD restore_stream(HANDLE file, const WCHAR *record, const Stream *stream) {
  if (stream->id == DATA) return write_at(file, 0, stream->bytes, stream->size);
  if (stream->id == SPARSE_BLOCK) {
    uint64_t offset;
    if (stream->size < sizeof offset) return ERROR_INVALID_DATA;
    memcpy(&offset, stream->bytes, sizeof offset);
    return write_at(file, offset, stream->bytes + sizeof offset, stream->size - sizeof offset);
  }
  size_t size = 0;
  uint8_t *kept = read_whole(record, &size);
  Buffer all = {0};
  keep(kept, kept == NULL ? 0 : size, stream, &all);
  bool written = make_directories(L"C:\\doubles\\streams") && write_whole(record, all.text, all.length);
  free(kept);
  free(all.text);
  return written ? 0 : GetLastError();
}

DWORD restore_streams(HANDLE file, const uint8_t *bytes, size_t size) {
  Stream stream;
  size_t at = 0;
  int found = 0;
  DWORD error = 0;
  WCHAR *record = record_of(file);
  if (record == NULL) return ERROR_INVALID_HANDLE;
  while (error == 0 && (found = next_stream(bytes, size, &at, &stream)) > 0) error = restore_stream(file, record, &stream);
  free(record);
  return error == 0 && found < 0 ? ERROR_INVALID_DATA : error;
}

static void put_header(Buffer *streams, uint32_t id, uint64_t size) {
  uint8_t header[HEADER] = {0};
  memcpy(header, &id, 4);
  memcpy(header + 8, &size, 8);
  put_bytes(streams, header, HEADER);
}

static DWORD put_data(HANDLE file, Buffer *streams) {
  BY_HANDLE_FILE_INFORMATION information;
  LARGE_INTEGER size, start = {0};
  if (!GetFileInformationByHandle(file, &information)) return GetLastError();
  if (information.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) return 0;
  if (!GetFileSizeEx(file, &size) || !SetFilePointerEx(file, start, NULL, FILE_BEGIN)) return GetLastError();
  put_header(streams, DATA, size.QuadPart);
  uint8_t *bytes = allocate(size.QuadPart + 1);
  DWORD got = 0;
  bool read = ReadFile(file, bytes, (DWORD)size.QuadPart, &got, NULL) && got == size.QuadPart;
  if (read) put_bytes(streams, bytes, got);
  free(bytes);
  return read ? 0 : ERROR_READ_FAULT;
}

/* In Windows' order: alternate streams after the data. */
DWORD backup_streams(HANDLE file, Buffer *streams) {
  WCHAR *record = record_of(file);
  if (record == NULL) return ERROR_INVALID_HANDLE;
  size_t size = 0;
  uint8_t *kept = read_whole(record, &size);
  DWORD error = 0;
  for (int alternate = 0; alternate < 2; alternate++) {
    Stream stream;
    size_t at = 0;
    while (kept != NULL && next_stream(kept, size, &at, &stream) > 0)
      if ((stream.id == ALTERNATE_DATA) == (alternate == 1)) put_bytes(streams, stream.start, stream.total);
    if (alternate == 0) error = put_data(file, streams);
  }
  free(kept);
  free(record);
  return error;
}

HANDLE open_for_streams(const WCHAR *path, DWORD access, DWORD disposition) {
  return CreateFileW(path, access, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, disposition,
                     FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT, NULL);
}

void forget_streams(const WCHAR *path) {
  HANDLE file = open_for_streams(path, 0, OPEN_EXISTING);
  WCHAR *record = file == INVALID_HANDLE_VALUE ? NULL : record_of(file);
  if (file != INVALID_HANDLE_VALUE) CloseHandle(file);
  if (record != NULL) DeleteFileW(record);
  free(record);
}
