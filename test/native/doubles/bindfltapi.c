/*
 * Contract double of bindfltapi.dll. Contract: go-winio pkg/bindfilter. A binding is a symbolic link in the place of
 * its root; a directory that was there is kept aside, as the filter hides it. Bindings of jobs are only recorded.
 */
#include "volume.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INVALID FAILED_WITH(ERROR_INVALID_PARAMETER)
#define BINDINGS L"C:\\doubles\\bindings"

enum { READ_ONLY = 1, MERGED = 2, CURRENT_SILO = 4, NO_MULTIPLE_TARGETS = 0x40 };

typedef struct {
  uint32_t size, status, count;
} Header;

typedef struct {
  uint32_t root_length, root_offset, flags, targets, targets_offset;
} Mapping;

typedef struct {
  uint32_t length, offset;
} Target;

static WCHAR *full_path(const WCHAR *path) {
  WCHAR full[2048];
  if (path == NULL || GetFullPathNameW(path, 2048, full, NULL) == 0) return NULL;
  size_t length = wcslen(full);
  while (length > 3 && full[length - 1] == '\\') full[--length] = 0;
  return copy_text(full);
}

static WCHAR *record_of(const WCHAR *root, const WCHAR *suffix) {
  GUID guid;
  name_guid(root, &guid);
  return volume_record(L"bindings", &guid, suffix);
}

static HRESULT bind(const WCHAR *root, const WCHAR *target, uint32_t flags) {
  GUID volume;
  WCHAR *above = copy_text(root), *name = wcsrchr(above, '\\');
  *name = 0;
  bool placed = is_directory(above) || wcslen(above) == 2;
  free(above);
  if (!placed) return FAILED_WITH(ERROR_PATH_NOT_FOUND);
  if (!is_directory(target) && !is_file(target)) return FAILED_WITH(ERROR_FILE_NOT_FOUND);
  WCHAR *record = record_of(root, L""), *hidden = record_of(root, L".hidden"), *shown = NULL;
  HRESULT result = S_OK;
  bool whole = volume_in_path(target, &volume) && wcslen(target) == 49;
  if (is_file(record)) {
    result = INVALID;
  } else if ((is_directory(root) || is_file(root)) && !MoveFileExW(root, hidden, MOVEFILE_COPY_ALLOWED)) {
    result = FAILED_WITH(GetLastError());
  } else {
    shown = whole ? volume_directory(&volume) : copy_text(target);
    Buffer text = {0};
    put_bytes(&text, &flags, sizeof flags);
    put_bytes(&text, root, (wcslen(root) + 1) * sizeof *root);
    put_bytes(&text, target, (wcslen(target) + 1) * sizeof *target);
    if (!make_link(root, shown) || !write_whole(record, text.text, text.length)) {
      result = FAILED_WITH(ERROR_ACCESS_DENIED);
      remove_link(root);
      MoveFileExW(hidden, root, MOVEFILE_COPY_ALLOWED);
    }
    free(text.text);
  }
  free(record);
  free(hidden);
  free(shown);
  return result;
}

HRESULT WINAPI BfSetupFilter(HANDLE job, uint32_t flags, const WCHAR *root, const WCHAR *target,
                             const WCHAR *const *exceptions, uint32_t count) {
  Call call;
  begin(&call, "BfSetupFilter");
  arg_number(&call, "hasJob", job != NULL);
  arg_number(&call, "flags", flags);
  arg_text(&call, "virtualizationRootPath", root);
  arg_text(&call, "virtualizationTargetPath", target);
  if (!enter(&call)) return leave(&call, call.failure);
  WCHAR *full = full_path(root);
  if (full == NULL || target == NULL || (count > 0 && exceptions == NULL) || flags & ~0x4fu) return leave(&call, INVALID);
  bool on_volume = wcsstr(target, L"Volume{") != NULL;
  if (on_volume && target[wcslen(target) - 1] != '\\') return leave(&call, INVALID);
  lock_world();
  HRESULT result = job != NULL ? S_OK : bind(full, target, flags);
  unlock_world();
  free(full);
  return leave(&call, result);
}

static HRESULT unbind(const WCHAR *root) {
  WCHAR *record = record_of(root, L""), *hidden = record_of(root, L".hidden");
  HRESULT result = S_OK;
  if (!is_file(record)) {
    result = FAILED_WITH(ERROR_NOT_FOUND);
  } else {
    /* Whoever took the place away by other means has taken the link too. */
    remove_link(root);
    MoveFileExW(hidden, root, MOVEFILE_COPY_ALLOWED);
    DeleteFileW(record);
  }
  free(record);
  free(hidden);
  return result;
}

HRESULT WINAPI BfRemoveMapping(HANDLE job, const WCHAR *root) {
  Call call;
  begin(&call, "BfRemoveMapping");
  arg_number(&call, "hasJob", job != NULL);
  arg_text(&call, "virtualizationRootPath", root);
  if (!enter(&call)) return leave(&call, call.failure);
  WCHAR *full = full_path(root);
  if (full == NULL) return leave(&call, INVALID);
  lock_world();
  HRESULT result = job != NULL ? S_OK : unbind(full);
  unlock_world();
  free(full);
  return leave(&call, result);
}

/* As the kernel names it: C: is its first disk volume. */
static WCHAR *kernel_path(const WCHAR *path) {
  size_t length = wcslen(path) + 64;
  WCHAR *name = allocate(length * sizeof *name);
  GUID volume;
  if (volume_in_path(path, &volume)) swprintf(name, length, L"\\Device\\Volume%.38ls%ls", path + 10, path + 48);
  else swprintf(name, length, L"\\Device\\HarddiskVolume%d%ls", towupper(path[0]) - 'C' + 1, path + 2);
  return name;
}

/* Entries first, then targets and texts, each found by its offset from the beginning. */
static void put_mappings(Buffer *answer) {
  WIN32_FIND_DATAW entry;
  HANDLE search = FindFirstFileW(BINDINGS L"\\{*}", &entry);
  Buffer mappings = {0}, texts = {0};
  Header header = {0};
  uint32_t records = 0;
  if (search != INVALID_HANDLE_VALUE) {
    do records++;
    while (FindNextFileW(search, &entry));
    FindClose(search);
  }
  uint32_t base = sizeof header + records * sizeof(Mapping);
  search = FindFirstFileW(BINDINGS L"\\{*}", &entry);
  if (search != INVALID_HANDLE_VALUE) {
    do {
      WCHAR *file = join_path(BINDINGS, entry.cFileName);
      uint8_t *record = read_whole(file, NULL);
      free(file);
      if (record == NULL) continue;
      const WCHAR *root = (const WCHAR *)(record + 4), *target = root + wcslen(root) + 1;
      WCHAR *names[2] = {kernel_path(root), kernel_path(target)};
      uint32_t lengths[2] = {(uint32_t)(wcslen(names[0]) * 2), (uint32_t)(wcslen(names[1]) * 2)};
      uint32_t at = base + (uint32_t)texts.length;
      Mapping mapping = {lengths[0], at, *(uint32_t *)record, 1, at + lengths[0]};
      Target shown = {lengths[1], at + lengths[0] + sizeof(Target)};
      put_bytes(&mappings, &mapping, sizeof mapping);
      put_bytes(&texts, names[0], lengths[0]);
      put_bytes(&texts, &shown, sizeof shown);
      put_bytes(&texts, names[1], lengths[1]);
      header.count++;
      free(names[0]);
      free(names[1]);
      free(record);
    } while (FindNextFileW(search, &entry));
    FindClose(search);
  }
  header.size = base + (uint32_t)texts.length;
  put_bytes(answer, &header, sizeof header);
  put_bytes(answer, mappings.text, mappings.length);
  put_bytes(answer, texts.text, texts.length);
  free(mappings.text);
  free(texts.text);
}

HRESULT WINAPI BfGetMappings(uint32_t flags, HANDLE job, const WCHAR *root, const void *sid, uint32_t *size, void *out) {
  Call call;
  begin(&call, "BfGetMappings");
  arg_number(&call, "flags", flags);
  arg_text(&call, "virtualizationRootPath", root);
  if (!enter(&call)) return leave(&call, call.failure);
  (void)sid;
  if (size == NULL || out == NULL || job != NULL || flags != 1 || root == NULL) return leave(&call, INVALID);
  Buffer answer = {0};
  lock_world();
  put_mappings(&answer);
  unlock_world();
  HRESULT result = answer.length <= *size ? S_OK : FAILED_WITH(ERROR_INSUFFICIENT_BUFFER);
  if (SUCCEEDED(result)) memcpy(out, answer.text, answer.length);
  *size = (uint32_t)answer.length;
  free(answer.text);
  return leave(&call, result);
}
