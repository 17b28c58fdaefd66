#include "double.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATE L"C:\\doubles"

static volatile LONG in_progress;

void *allocate(size_t size) {
  void *memory = calloc(1, size ? size : 1);
  if (memory == NULL) abort();
  return memory;
}

WCHAR *copy_text(const WCHAR *text) {
  size_t size = (wcslen(text) + 1) * sizeof *text;
  return memcpy(allocate(size), text, size);
}

WCHAR *join_path(const WCHAR *directory, const WCHAR *name) {
  size_t length = wcslen(directory) + wcslen(name) + 2;
  WCHAR *path = allocate(length * sizeof *path);
  swprintf(path, length, L"%ls\\%ls", directory, name);
  return path;
}

bool ends_in_backslash(const WCHAR *path) {
  size_t length = wcslen(path);
  return length > 0 && path[length - 1] == '\\';
}

void put_bytes(Buffer *buffer, const void *bytes, size_t count) {
  if (buffer->length + count + 1 > buffer->capacity) {
    buffer->capacity = (buffer->length + count + 1) * 2;
    buffer->text = realloc(buffer->text, buffer->capacity);
    if (buffer->text == NULL) abort();
  }
  memcpy(buffer->text + buffer->length, bytes, count);
  buffer->length += count;
  buffer->text[buffer->length] = 0;
}

void put_text(Buffer *buffer, const char *text) {
  put_bytes(buffer, text, strlen(text));
}

void put_format(Buffer *buffer, const char *format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  put_text(buffer, text);
}

void put_json(Buffer *buffer, const WCHAR *text) {
  if (text == NULL) {
    put_text(buffer, "null");
    return;
  }
  put_text(buffer, "\"");
  for (; *text; text++) {
    if (*text < 32 || *text == '"' || *text == '\\' || *text > 126) put_format(buffer, "\\u%04x", *text);
    else put_format(buffer, "%c", (char)*text);
  }
  put_text(buffer, "\"");
}

void guid_text(const GUID *guid, WCHAR *text) {
  swprintf(text, 39, L"{%08x-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x}", guid->Data1, guid->Data2, guid->Data3,
           guid->Data4[0], guid->Data4[1], guid->Data4[2], guid->Data4[3], guid->Data4[4], guid->Data4[5],
           guid->Data4[6], guid->Data4[7]);
}

static void find_devices(WCHAR *directory) {
  char *(CDECL *unix_name)(const WCHAR *) =
      (void *)GetProcAddress(GetModuleHandleW(L"kernel32"), "wine_get_unix_file_name");
  WCHAR path[MAX_PATH] = L"\\\\?\\unix";
  char *name = unix_name(L"C:\\");
  MultiByteToWideChar(CP_UTF8, 0, name, -1, path + wcslen(path), MAX_PATH - 16);
  HeapFree(GetProcessHeap(), 0, name);
  for (WCHAR *at = path; *at; at++)
    if (*at == '/') *at = '\\';
  *wcsstr(path, L"\\dosdevices\\") = 0;
  swprintf(directory, MAX_PATH, L"%ls\\dosdevices", path);
}

const WCHAR *devices_directory(void) {
  static SRWLOCK finding = SRWLOCK_INIT;
  static WCHAR directory[MAX_PATH];
  AcquireSRWLockExclusive(&finding);
  if (directory[0] == 0) find_devices(directory);
  ReleaseSRWLockExclusive(&finding);
  return directory;
}

bool is_directory(const WCHAR *path) {
  DWORD attributes = GetFileAttributesW(path);
  return attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY);
}

bool is_file(const WCHAR *path) {
  DWORD attributes = GetFileAttributesW(path);
  return attributes != INVALID_FILE_ATTRIBUTES && !(attributes & FILE_ATTRIBUTE_DIRECTORY);
}

bool make_directories(const WCHAR *path) {
  if (is_directory(path) || CreateDirectoryW(path, NULL)) return true;
  WCHAR *above = copy_text(path);
  WCHAR *end = wcsrchr(above, '\\');
  bool made = false;
  if (GetLastError() == ERROR_PATH_NOT_FOUND && end != NULL && end > above + 3) {
    *end = 0;
    made = make_directories(above) && CreateDirectoryW(path, NULL);
  }
  free(above);
  return made;
}

uint8_t *read_whole(const WCHAR *path, size_t *size) {
  HANDLE file = CreateFileW(path, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL,
                            OPEN_EXISTING, 0, NULL);
  if (file == INVALID_HANDLE_VALUE) return NULL;
  LARGE_INTEGER length;
  uint8_t *bytes = NULL;
  DWORD got = 0;
  if (GetFileSizeEx(file, &length)) {
    bytes = allocate(length.QuadPart + 1);
    if (!ReadFile(file, bytes, (DWORD)length.QuadPart, &got, NULL) || got != length.QuadPart) {
      free(bytes);
      bytes = NULL;
    }
  }
  CloseHandle(file);
  if (size != NULL) *size = got;
  return bytes;
}

static bool write_to(const WCHAR *path, DWORD access, DWORD disposition, const void *bytes, size_t size) {
  HANDLE file = CreateFileW(path, access, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, disposition,
                            FILE_ATTRIBUTE_NORMAL, NULL);
  if (file == INVALID_HANDLE_VALUE) return false;
  DWORD put;
  bool written = WriteFile(file, bytes, (DWORD)size, &put, NULL) && put == size;
  CloseHandle(file);
  return written;
}

bool write_whole(const WCHAR *path, const void *bytes, size_t size) {
  return write_to(path, GENERIC_WRITE, CREATE_ALWAYS, bytes, size);
}

bool remove_tree(const WCHAR *path) {
  if (!is_directory(path)) {
    SetFileAttributesW(path, FILE_ATTRIBUTE_NORMAL);
    return DeleteFileW(path);
  }
  WIN32_FIND_DATAW entry;
  WCHAR *pattern = join_path(path, L"*");
  HANDLE search = FindFirstFileW(pattern, &entry);
  free(pattern);
  bool removed = true;
  if (search != INVALID_HANDLE_VALUE) {
    do {
      if (wcscmp(entry.cFileName, L".") == 0 || wcscmp(entry.cFileName, L"..") == 0) continue;
      WCHAR *child = join_path(path, entry.cFileName);
      removed = remove_tree(child) && removed;
      free(child);
    } while (FindNextFileW(search, &entry));
    FindClose(search);
  }
  return RemoveDirectoryW(path) && removed;
}

static HANDLE world_mutex(void) {
  static HANDLE mutex;
  if (mutex == NULL) mutex = CreateMutexW(NULL, FALSE, L"Local\\cimlet-doubles");
  return mutex;
}

void lock_world(void) {
  WaitForSingleObject(world_mutex(), INFINITE);
}

void unlock_world(void) {
  ReleaseMutex(world_mutex());
}

extern IMAGE_DOS_HEADER __ImageBase;

/* "cimfs" in cimfs.dll. */
static const char *own_name(void) {
  static SRWLOCK finding = SRWLOCK_INIT;
  static char name[MAX_PATH];
  AcquireSRWLockExclusive(&finding);
  if (name[0] == 0) {
    char path[MAX_PATH];
    GetModuleFileNameA((HMODULE)&__ImageBase, path, MAX_PATH);
    strcpy(name, strrchr(path, '\\') + 1);
    *strrchr(name, '.') = 0;
  }
  ReleaseSRWLockExclusive(&finding);
  return name;
}

void begin(Call *call, const char *function) {
  memset(call, 0, sizeof *call);
  call->function = function;
  call->concurrent = InterlockedIncrement(&in_progress);
  put_format(&call->line, "{\"dll\":\"%s\",\"call\":\"%s\",\"process\":%lu,\"args\":{", own_name(), function,
             GetCurrentProcessId());
}

static void arg_name(Call *call, const char *name) {
  put_format(&call->line, "%s\"%s\":", call->line.text[call->line.length - 1] == '{' ? "" : ",", name);
}

void arg_text(Call *call, const char *name, const WCHAR *value) {
  arg_name(call, name);
  put_json(&call->line, value);
}

void arg_number(Call *call, const char *name, uint64_t value) {
  arg_name(call, name);
  put_format(&call->line, "%llu", (unsigned long long)value);
}

void arg_guid(Call *call, const char *name, const GUID *value) {
  WCHAR text[39];
  if (value != NULL) guid_text(value, text);
  arg_text(call, name, value == NULL ? NULL : text);
}

void arg_hex(Call *call, const char *name, const void *bytes, size_t count) {
  arg_name(call, name);
  put_text(&call->line, "\"");
  for (size_t at = 0; bytes != NULL && at < count; at++) put_format(&call->line, "%02x", ((const uint8_t *)bytes)[at]);
  put_text(&call->line, "\"");
}

static void log_line(Call *call, const char *end) {
  Buffer line = {0};
  put_bytes(&line, call->line.text, call->line.length);
  put_format(&line, "},\"concurrent\":%d,%s}\n", call->concurrent, end);
  /* Appending is atomic. */
  write_to(STATE L"\\calls.jsonl", FILE_APPEND_DATA, OPEN_ALWAYS, line.text, line.length);
  free(line.text);
}

/* Finds the fault for this call, and counts down those of its function. */
static bool take_fault(const char *function, char *action, DWORD *code) {
  bool struck = false;
  if (!is_file(STATE L"\\faults.txt")) return false;
  lock_world();
  size_t size;
  char *plan = (char *)read_whole(STATE L"\\faults.txt", &size);
  if (plan != NULL) {
    Buffer rest = {0};
    put_text(&rest, "");
    plan[size] = 0;
    for (char *line = strtok(plan, "\r\n"); line != NULL; line = strtok(NULL, "\r\n")) {
      char name[64], what[32];
      unsigned long nth, value;
      if (sscanf(line, "%63s %lu %31s %lx", name, &nth, what, &value) != 4) continue;
      bool ours = strcmp(name, function) == 0 || strcmp(name, "*") == 0;
      bool strikes = ours && !struck && nth <= 1;
      if (strikes) {
        struck = true;
        strcpy(action, what);
        *code = value;
      }
      if (!strikes || nth == 0)
        put_format(&rest, "%s %lu %s %lx\n", name, ours && nth > 1 ? nth - 1 : nth, what, value);
    }
    write_whole(STATE L"\\faults.txt", rest.text, rest.length);
    free(rest.text);
    free(plan);
  }
  unlock_world();
  return struck;
}

static void hang(void) {
  while (!is_file(STATE L"\\release")) Sleep(10);
}

bool enter(Call *call) {
  char action[32];
  if (!take_fault(call->function, action, &call->failure)) return true;
  if (strcmp(action, "kill") == 0) {
    log_line(call, "\"fault\":\"killed before\"");
    TerminateProcess(GetCurrentProcess(), 137);
  }
  if (strcmp(action, "hang") == 0) {
    log_line(call, "\"fault\":\"hangs\"");
    hang();
    return true;
  }
  call->kill_after = strcmp(action, "kill-after") == 0;
  call->hang_after = strcmp(action, "hang-after") == 0;
  call->fail_after = strcmp(action, "fail-after") == 0;
  return call->kill_after || call->hang_after || call->fail_after;
}

DWORD leave(Call *call, DWORD code) {
  char end[64];
  if (call->fail_after) code = call->failure;
  snprintf(end, sizeof end, "\"result\":\"0x%08lx\"%s", code, call->kill_after ? ",\"fault\":\"killed after\"" : call->hang_after ? ",\"fault\":\"hangs after\"" : "");
  log_line(call, end);
  if (call->kill_after) TerminateProcess(GetCurrentProcess(), 137);
  if (call->hang_after) hang();
  InterlockedDecrement(&in_progress);
  free(call->line.text);
  return code;
}
