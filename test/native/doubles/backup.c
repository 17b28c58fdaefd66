/* BackupRead and BackupWrite of kernel32, which Wine leaves undone. volumes.c puts them in its place. */
#include "backup.h"
#include "layer.h"
#include "streams.h"
#include <stdlib.h>
#include <string.h>

static const uint64_t ALIVE = 0x7075636b6162;

typedef struct {
  uint64_t state;
  bool writes;
  Buffer streams;
  size_t at;
} Context;

static Context *begin_context(void **place, bool writes) {
  Context *context = allocate(sizeof *context);
  *context = (Context){.state = ALIVE, .writes = writes};
  *place = context;
  return context;
}

static DWORD end_context(void **place) {
  Context *context = *place;
  if (context == NULL) return 0;
  if (context->state != ALIVE) return ERROR_INVALID_PARAMETER;
  context->state = 0;
  free(context->streams.text);
  free(context);
  *place = NULL;
  return 0;
}

static bool is_valid(const Context *context, bool writes) {
  return context->state == ALIVE && context->writes == writes;
}

static DWORD read_streams(HANDLE file, uint8_t *buffer, DWORD size, DWORD *count, BOOL abort, void **place) {
  if (count == NULL || place == NULL) return ERROR_INVALID_PARAMETER;
  *count = 0;
  if (abort) return end_context(place);
  if (!has_privileges()) return ERROR_PRIVILEGE_NOT_HELD;
  Context *context = *place;
  if (context == NULL) {
    context = begin_context(place, false);
    DWORD error = backup_streams(file, &context->streams);
    if (error != 0) return error;
  }
  if (!is_valid(context, false)) return ERROR_INVALID_PARAMETER;
  size_t left = context->streams.length - context->at;
  *count = size < left ? size : (DWORD)left;
  if (*count > 0) memcpy(buffer, context->streams.text + context->at, *count);
  context->at += *count;
  return 0;
}

BOOL WINAPI backup_read(HANDLE file, uint8_t *buffer, DWORD size, DWORD *count, BOOL abort, BOOL security, void **context) {
  Call call;
  begin(&call, "BackupRead");
  arg_number(&call, "abort", abort);
  (void)security;
  DWORD error = enter(&call) ? read_streams(file, buffer, size, count, abort, context) : call.failure;
  error = leave(&call, error);
  SetLastError(error);
  return error == 0;
}

/* What was written takes effect when the context is given back: a caller who forgets that has restored nothing. */
static DWORD write_streams(HANDLE file, const uint8_t *buffer, DWORD size, DWORD *count, BOOL abort, void **place) {
  if (count == NULL || place == NULL) return ERROR_INVALID_PARAMETER;
  *count = 0;
  if (!has_privileges()) return ERROR_PRIVILEGE_NOT_HELD;
  Context *context = *place == NULL ? begin_context(place, true) : *place;
  if (!is_valid(context, true)) return ERROR_INVALID_PARAMETER;
  if (!abort) {
    put_bytes(&context->streams, buffer, size);
    *count = size;
    return 0;
  }
  /* NTFS leaves times alone that were set through the handle that writes. */
  FILETIME created, accessed, written;
  bool timed = GetFileTime(file, &created, &accessed, &written);
  DWORD error = restore_streams(file, (const uint8_t *)context->streams.text, context->streams.length);
  if (timed) SetFileTime(file, &created, &accessed, &written);
  DWORD ended = end_context(place);
  return error != 0 ? error : ended;
}

BOOL WINAPI backup_write(HANDLE file, const uint8_t *buffer, DWORD size, DWORD *count, BOOL abort, BOOL security,
                         void **context) {
  Call call;
  begin(&call, "BackupWrite");
  arg_number(&call, "size", size);
  arg_number(&call, "abort", abort);
  arg_number(&call, "security", security);
  DWORD error = enter(&call) ? write_streams(file, buffer, size, count, abort, context) : call.failure;
  error = leave(&call, error);
  SetLastError(error);
  return error == 0;
}
