/*
 * What the contract doubles share: the log of calls, planned faults, and state that outlives the process.
 *
 * All of it is in C:\doubles of the Windows world a test runs in:
 *   calls.jsonl   one line for each call that returned, or that was ended by a planned fault
 *   faults.txt    "<function> <nth> <action> <code>": the nth call from now on fails, hangs or kills the process.
 *                 nth 0 is every call. A fault that struck is taken out.
 *   release       while it exists, calls that hang go on
 * Calls of several processes are kept apart by a named mutex, which Windows frees when its owner dies.
 */
#ifndef DOUBLE_H
#define DOUBLE_H

#include <windows.h>
#include <stdint.h>
#include <stdbool.h>

#define FAILED_WITH(win32) HRESULT_FROM_WIN32(win32)

typedef struct {
  char *text;
  size_t length, capacity;
} Buffer;

void put_bytes(Buffer *buffer, const void *bytes, size_t count);
void put_text(Buffer *buffer, const char *text);
void put_format(Buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* As a JSON string; NULL is null. */
void put_json(Buffer *buffer, const WCHAR *text);

typedef struct {
  const char *function;
  Buffer line;
  int concurrent;
  bool kill_after;
  bool hang_after;
  bool fail_after;
  DWORD failure;
} Call;

/* In this order: begin, arguments, enter, then the work if it allows, leave. */
void begin(Call *call, const char *function);
void arg_text(Call *call, const char *name, const WCHAR *value);
void arg_number(Call *call, const char *name, uint64_t value);
void arg_guid(Call *call, const char *name, const GUID *value);
void arg_hex(Call *call, const char *name, const void *bytes, size_t count);
/* False when a fault is planned: `call->failure` is then the code to return. */
bool enter(Call *call);
/* Logs, and returns the code that the call really ends with. */
DWORD leave(Call *call, DWORD code);

/* One process at a time; for changes of C:\doubles and of what is mounted. */
void lock_world(void);
void unlock_world(void);

void *allocate(size_t size);
WCHAR *copy_text(const WCHAR *text);
WCHAR *join_path(const WCHAR *directory, const WCHAR *name);
bool ends_in_backslash(const WCHAR *path);
/* "{xxxxxxxx-...}" in lower case, into 39 characters. */
void guid_text(const GUID *guid, WCHAR *text);
/* \\?\unix\<prefix>\dosdevices: what is in it as volume{guid} is what \\?\Volume{guid}\ shows. */
const WCHAR *devices_directory(void);
/* What is there already may stay; false with GetLastError otherwise. */
bool make_directories(const WCHAR *path);
/* The whole file, or NULL with GetLastError. */
uint8_t *read_whole(const WCHAR *path, size_t *size);
bool write_whole(const WCHAR *path, const void *bytes, size_t size);
bool remove_tree(const WCHAR *path);
bool is_file(const WCHAR *path);
bool is_directory(const WCHAR *path);

#endif
