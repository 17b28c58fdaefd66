/*
 * Contract double of computecore.dll: the compute systems that a test has put into C:\doubles\systems, each a file <id>.json
 * with its basic properties; <id>.disks.json has what it says of its disks (systems of the older schema only),
 * <id>.guest.json what HCS knows of its guest (where HCS holds the connection to it), and <id>.devices is a folder of what
 * it was given (vm.c). Contract: hcsshim internal/computecore and the HCS reference.
 */
#include "json.h"
#include "vm.h"
#include <stdlib.h>
#include <string.h>

#define SYSTEMS L"C:\\doubles\\systems"
#define INVALID FAILED_WITH(ERROR_INVALID_PARAMETER)

enum { MAX_HANDLES = 64 };

static const HRESULT SYSTEM_NOT_FOUND = (HRESULT)0x8037010E;
static const HRESULT INVALID_JSON = (HRESULT)0x8037010D;
static const HRESULT NOT_STARTED = (HRESULT)0x80370116;

/* Operations and systems; handles are numbers never given twice. */
typedef struct {
  uint64_t number;
  /* Of systems. */
  WCHAR *id;
  /* Of operations, once something was begun with it. */
  Buffer result;
  bool begun;
} Handle;

static Handle handles[MAX_HANDLES];
static uint64_t last_number = 0x2000;
static SRWLOCK adding = SRWLOCK_INIT;

static Handle *find_handle(uint64_t number, bool system) {
  for (Handle *handle = handles; number != 0 && handle < handles + MAX_HANDLES; handle++)
    if (handle->number == number && (handle->id != NULL) == system) return handle;
  return NULL;
}

static uint64_t add_handle(WCHAR *id) {
  AcquireSRWLockExclusive(&adding);
  Handle *handle = handles;
  while (handle < handles + MAX_HANDLES && handle->number != 0) handle++;
  if (handle == handles + MAX_HANDLES) abort();
  last_number += 0x10;
  *handle = (Handle){.number = last_number, .id = id};
  ReleaseSRWLockExclusive(&adding);
  return handle->number;
}

static void close_handle(Handle *handle) {
  if (handle == NULL) return;
  free(handle->id);
  free(handle->result.text);
  *handle = (Handle){0};
}

static WCHAR *system_file(const WCHAR *id, const WCHAR *suffix) {
  WCHAR *name = allocate((wcslen(id) + wcslen(suffix) + 1) * sizeof *name);
  wcscat(wcscpy(name, id), suffix);
  WCHAR *path = join_path(SYSTEMS, name);
  free(name);
  return path;
}

uint64_t WINAPI HcsCreateOperation(const void *context, const void *callback) {
  Call call;
  begin(&call, "HcsCreateOperation");
  (void)context, (void)callback;
  uint64_t operation = enter(&call) ? add_handle(NULL) : 0;
  leave(&call, operation == 0 ? call.failure : 0);
  return operation;
}

void WINAPI HcsCloseOperation(uint64_t operation) {
  Call call;
  begin(&call, "HcsCloseOperation");
  enter(&call);
  Handle *handle = find_handle(operation, false);
  close_handle(handle);
  leave(&call, handle == NULL ? E_HANDLE : S_OK);
}

/* An operation is done as soon as it is begun; a result is UTF-8 in files and UTF-16 here. */
HRESULT WINAPI HcsWaitForOperationResult(uint64_t operation, DWORD milliseconds, WCHAR **result) {
  Call call;
  begin(&call, "HcsWaitForOperationResult");
  arg_number(&call, "milliseconds", milliseconds);
  if (result != NULL) *result = NULL;
  if (!enter(&call)) return leave(&call, call.failure);
  Handle *handle = find_handle(operation, false);
  if (handle == NULL) return leave(&call, E_HANDLE);
  if (!handle->begun) return leave(&call, NOT_STARTED);
  if (result != NULL && handle->result.length > 0) {
    int units = MultiByteToWideChar(CP_UTF8, 0, handle->result.text, -1, NULL, 0);
    *result = LocalAlloc(LMEM_FIXED, units * sizeof **result);
    MultiByteToWideChar(CP_UTF8, 0, handle->result.text, -1, *result, units);
  }
  return leave(&call, S_OK);
}

static void list_systems(Buffer *list) {
  WIN32_FIND_DATAW entry;
  HANDLE search = FindFirstFileW(SYSTEMS L"\\*.json", &entry);
  put_text(list, "[");
  if (search != INVALID_HANDLE_VALUE) {
    do {
      if (wcschr(entry.cFileName, '.') != wcsrchr(entry.cFileName, '.')) continue;
      WCHAR *path = join_path(SYSTEMS, entry.cFileName);
      size_t size;
      uint8_t *text = read_whole(path, &size);
      if (list->length > 1) put_text(list, ",");
      if (text != NULL) put_bytes(list, text, size);
      free(text);
      free(path);
    } while (FindNextFileW(search, &entry));
    FindClose(search);
  }
  put_text(list, "]");
}

/* An operation serves once. */
static HRESULT begin_operation(uint64_t operation, Handle **found) {
  Handle *handle = find_handle(operation, false);
  if (handle == NULL) return E_HANDLE;
  if (handle->begun) return INVALID;
  handle->begun = true;
  *found = handle;
  return S_OK;
}

HRESULT WINAPI HcsEnumerateComputeSystems(const WCHAR *query, uint64_t operation) {
  Call call;
  Handle *handle;
  begin(&call, "HcsEnumerateComputeSystems");
  arg_text(&call, "query", query);
  if (!enter(&call)) return leave(&call, call.failure);
  HRESULT result = begin_operation(operation, &handle);
  if (SUCCEEDED(result)) list_systems(&handle->result);
  return leave(&call, result);
}

HRESULT WINAPI HcsOpenComputeSystem(const WCHAR *id, DWORD access, uint64_t *system) {
  Call call;
  begin(&call, "HcsOpenComputeSystem");
  arg_text(&call, "id", id);
  arg_number(&call, "access", access);
  if (!enter(&call)) return leave(&call, call.failure);
  if (id == NULL || system == NULL || wcspbrk(id, L"\\/:") != NULL) return leave(&call, INVALID);
  WCHAR *file = system_file(id, L".json");
  bool there = is_file(file);
  free(file);
  if (!there) return leave(&call, SYSTEM_NOT_FOUND);
  *system = add_handle(copy_text(id));
  return leave(&call, S_OK);
}

void WINAPI HcsCloseComputeSystem(uint64_t system) {
  Call call;
  begin(&call, "HcsCloseComputeSystem");
  enter(&call);
  Handle *handle = find_handle(system, true);
  close_handle(handle);
  leave(&call, handle == NULL ? E_HANDLE : S_OK);
}

static bool read_system(const Handle *owner, const WCHAR *suffix, Buffer *to) {
  WCHAR *file = system_file(owner->id, suffix);
  size_t size;
  uint8_t *text = read_whole(file, &size);
  free(file);
  if (text == NULL) return false;
  if (to->length > 0) {
    /* One object of two. */
    to->length = strrchr(to->text, '}') - to->text;
    put_text(to, ",");
    put_bytes(to, strchr((char *)text, '{') + 1, size - (strchr((char *)text, '{') + 1 - (char *)text));
  } else put_bytes(to, text, size);
  free(text);
  return true;
}

/* The documented property types; of those, the ones that this has answers to. */
static HRESULT answer(const Handle *owner, const WCHAR *query, Buffer *result) {
  static const WCHAR *const OTHERS[] = {L"Memory", L"Statistics", L"ProcessList", L"TerminateOnLastHandleClosed",
                                        L"SharedMemoryRegion"};
  if (!read_system(owner, L".json", result)) return SYSTEM_NOT_FOUND;
  if (query == NULL) return S_OK;
  Json json;
  const WCHAR *type = parse_json(query, &json) ? json_text(&json, "PropertyTypes[0]") : NULL;
  HRESULT answered = INVALID_JSON;
  if (type == NULL) answered = json.count == 0 ? S_OK : INVALID_JSON;
  else if (wcscmp(type, L"MappedVirtualDisk") == 0) answered = read_system(owner, L".disks.json", result) ? S_OK : INVALID_JSON;
  else if (wcscmp(type, L"GuestConnection") == 0) {
    read_system(owner, L".guest.json", result);
    answered = S_OK;
  } else
    for (size_t at = 0; at < sizeof OTHERS / sizeof *OTHERS; at++)
      if (wcscmp(type, OTHERS[at]) == 0) answered = S_OK;
  free_json(&json);
  return answered;
}

static HRESULT get_properties(uint64_t system, uint64_t operation, const WCHAR *query) {
  Handle *owner = find_handle(system, true), *handle;
  if (owner == NULL) return E_HANDLE;
  HRESULT result = begin_operation(operation, &handle);
  return FAILED(result) ? result : answer(owner, query, &handle->result);
}

HRESULT WINAPI HcsGetComputeSystemProperties(uint64_t system, uint64_t operation, const WCHAR *query) {
  Call call;
  begin(&call, "HcsGetComputeSystemProperties");
  arg_text(&call, "query", query);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, get_properties(system, operation, query));
}

static HRESULT modify(uint64_t system, uint64_t operation, const WCHAR *document) {
  Handle *owner = find_handle(system, true), *handle;
  if (owner == NULL) return E_HANDLE;
  if (document == NULL) return INVALID;
  HRESULT result = begin_operation(operation, &handle);
  if (FAILED(result)) return result;
  WCHAR *guest = system_file(owner->id, L".guest.json"), *devices = system_file(owner->id, L".devices");
  lock_world();
  result = modify_vm(devices, is_file(guest), document);
  unlock_world();
  free(guest);
  free(devices);
  return result;
}

HRESULT WINAPI HcsModifyComputeSystem(uint64_t system, uint64_t operation, const WCHAR *document, HANDLE identity) {
  Call call;
  begin(&call, "HcsModifyComputeSystem");
  arg_text(&call, "document", document);
  if (!enter(&call)) return leave(&call, call.failure);
  return leave(&call, identity != NULL ? INVALID : modify(system, operation, document));
}

HRESULT WINAPI HcsGrantVmGroupAccess(const WCHAR *file) {
  Call call;
  begin(&call, "HcsGrantVmGroupAccess");
  arg_text(&call, "file", file);
  if (!enter(&call)) return leave(&call, call.failure);
  if (file == NULL) return leave(&call, INVALID);
  return leave(&call, is_file(file) ? S_OK : FAILED_WITH(ERROR_FILE_NOT_FOUND));
}
