/*
 * Contract double of offreg.dll, as far as layers' hives go: created, read, merged and saved as files. Contract:
 * learn.microsoft.com, "Offline Registry Library"; ORMergeHives, which isn't there, as hcsshim calls it. What merging makes of
 * keys is Windows' own: here a merged hive is the list of what it was merged from, base first, and can be opened and merged again.
 */
#include "double.h"
#include <stdlib.h>
#include <string.h>

static const char MAGIC[4] = {'r', 'e', 'g', 'f'};
static const char MERGED[8] = {'r', 'e', 'g', 'f', 'm', 'r', 'g', 'd'};
static const uint64_t OPEN = 0x65766968;

typedef struct {
  uint64_t state;
  uint8_t *bytes;
  size_t size;
} Hive;

static Hive *make_hive(uint8_t *bytes, size_t size) {
  Hive *hive = allocate(sizeof *hive);
  *hive = (Hive){OPEN, bytes, size};
  return hive;
}

/* Closed hives stay allocated, so that use after close is seen rather than undefined. */
static bool is_open(const Hive *hive) {
  return hive != NULL && hive->state == OPEN;
}

DWORD WINAPI ORCreateHive(Hive **hive) {
  Call call;
  begin(&call, "ORCreateHive");
  if (!enter(&call)) return leave(&call, call.failure);
  if (hive == NULL) return leave(&call, ERROR_INVALID_PARAMETER);
  uint8_t *bytes = allocate(sizeof MAGIC);
  memcpy(bytes, MAGIC, sizeof MAGIC);
  *hive = make_hive(bytes, sizeof MAGIC);
  return leave(&call, 0);
}

static DWORD open_hive(const WCHAR *path, Hive **hive) {
  if (path == NULL || hive == NULL) return ERROR_INVALID_PARAMETER;
  size_t size;
  uint8_t *bytes = read_whole(path, &size);
  if (bytes == NULL) return GetLastError();
  if (size < sizeof MAGIC || memcmp(bytes, MAGIC, sizeof MAGIC) != 0) {
    free(bytes);
    return ERROR_BADDB;
  }
  *hive = make_hive(bytes, size);
  return 0;
}

DWORD WINAPI OROpenHive(const WCHAR *path, Hive **hive) {
  Call call;
  begin(&call, "OROpenHive");
  arg_text(&call, "path", path);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, open_hive(path, hive));
}

DWORD WINAPI ORCloseHive(Hive *hive) {
  Call call;
  begin(&call, "ORCloseHive");
  if (!enter(&call)) return leave(&call, call.failure);
  if (!is_open(hive)) return leave(&call, ERROR_INVALID_HANDLE);
  hive->state = 0;
  free(hive->bytes);
  return leave(&call, 0);
}

static DWORD merge_hives(Hive *const *hives, ULONG count, Hive **merged) {
  if (hives == NULL || count < 2 || merged == NULL) return ERROR_INVALID_PARAMETER;
  Buffer text = {0};
  put_bytes(&text, MERGED, sizeof MERGED);
  for (ULONG at = 0; at < count; at++) {
    if (!is_open(hives[at])) {
      free(text.text);
      return ERROR_INVALID_HANDLE;
    }
    put_format(&text, "\n%llu\n", (unsigned long long)hives[at]->size);
    put_bytes(&text, hives[at]->bytes, hives[at]->size);
  }
  *merged = make_hive((uint8_t *)text.text, text.length);
  return 0;
}

DWORD WINAPI ORMergeHives(Hive *const *hives, ULONG count, Hive **merged) {
  Call call;
  begin(&call, "ORMergeHives");
  arg_number(&call, "count", count);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, merge_hives(hives, count, merged));
}

static DWORD save_hive(const Hive *hive, const WCHAR *path, DWORD major) {
  if (!is_open(hive)) return ERROR_INVALID_HANDLE;
  if (path == NULL || major < 5) return ERROR_INVALID_PARAMETER;
  if (is_file(path) || is_directory(path)) return ERROR_FILE_EXISTS;
  return write_whole(path, hive->bytes, hive->size) ? 0 : GetLastError();
}

DWORD WINAPI ORSaveHive(Hive *hive, const WCHAR *path, DWORD major, DWORD minor) {
  Call call;
  begin(&call, "ORSaveHive");
  arg_text(&call, "path", path);
  arg_number(&call, "major", major);
  arg_number(&call, "minor", minor);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, save_hive(hive, path, major));
}
