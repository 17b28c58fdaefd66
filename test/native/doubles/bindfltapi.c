/*
 * Contract double of bindfltapi.dll, as go-winio's pkg/bindfilter uses it: a directory, empty here, shows another one
 * until the mapping is removed. The mapping is a symbolic link of the machine that runs Wine, so that all processes see it.
 */
#include "double.h"
#include <stdlib.h>
#include <string.h>

#define MAPPINGS L"C:\\doubles\\bindings"

enum { READ_ONLY = 1, NO_MULTIPLE_TARGETS = 0x40 };

static char *unix_name(const WCHAR *path) {
  char *(CDECL *get)(const WCHAR *) = (void *)GetProcAddress(GetModuleHandleW(L"kernel32"), "wine_get_unix_file_name");
  return get(path);
}

static bool run(char *program, char *option, char *first, char *second) {
  LONG(CDECL *spawn)(char *const *, int) = (void *)GetProcAddress(GetModuleHandleW(L"ntdll"), "__wine_unix_spawnvp");
  char *arguments[] = {program, option, "--", first, second, NULL};
  return spawn(arguments, 1) == 0;
}

/* Where a mapping is noted: one file for each root. */
static WCHAR *note_of(const WCHAR *root) {
  WCHAR *name = copy_text(root);
  for (WCHAR *at = name; *at; at++) *at = wcschr(L":\\/", *at) ? '_' : towlower(*at);
  WCHAR *note = join_path(MAPPINGS, name);
  free(name);
  return note;
}

static HRESULT map(HANDLE job, uint32_t flags, const WCHAR *root, const WCHAR *target, uint32_t exceptions) {
  if (root == NULL || target == NULL || exceptions != 0 || flags & ~(READ_ONLY | NO_MULTIPLE_TARGETS))
    return FAILED_WITH(ERROR_INVALID_PARAMETER);
  if (job != NULL) return FAILED_WITH(ERROR_NOT_SUPPORTED);
  if (wcsstr(target, L"Volume{") && target[wcslen(target) - 1] != '\\') return FAILED_WITH(ERROR_INVALID_PARAMETER);
  if (!is_directory(root) || !is_directory(target)) return FAILED_WITH(ERROR_PATH_NOT_FOUND);
  WCHAR *note = note_of(root), *shown = copy_text(target);
  if (shown[wcslen(shown) - 1] == '\\') shown[wcslen(shown) - 1] = 0;
  HRESULT result = FAILED_WITH(ERROR_INVALID_PARAMETER);
  if (!is_file(note)) {
    char *from = unix_name(root), *to = unix_name(shown);
    result = FAILED_WITH(ERROR_DIR_NOT_EMPTY);
    if (RemoveDirectoryW(root))
      result = run("ln", "-s", to, from) && make_directories(MAPPINGS) && write_whole(note, "", 0)
                   ? S_OK
                   : FAILED_WITH(ERROR_GEN_FAILURE);
  }
  free(note);
  free(shown);
  return result;
}

static HRESULT unmap(HANDLE job, const WCHAR *root) {
  if (root == NULL) return FAILED_WITH(ERROR_INVALID_PARAMETER);
  if (job != NULL) return FAILED_WITH(ERROR_NOT_SUPPORTED);
  WCHAR *note = note_of(root);
  HRESULT result = FAILED_WITH(ERROR_NOT_FOUND);
  if (is_file(note)) {
    char *from = unix_name(root);
    bool gone = run("rm", "-f", from, NULL) && CreateDirectoryW(root, NULL) && DeleteFileW(note);
    result = gone ? S_OK : FAILED_WITH(ERROR_GEN_FAILURE);
  }
  free(note);
  return result;
}

HRESULT WINAPI BfSetupFilter(HANDLE job, uint32_t flags, const WCHAR *root, const WCHAR *target, const WCHAR **exceptions,
                             uint32_t count) {
  Call call;
  begin(&call, "BfSetupFilter");
  arg_number(&call, "flags", flags);
  arg_text(&call, "virtualizationRootPath", root);
  arg_text(&call, "virtualizationTargetPath", target);
  if (!enter(&call)) return leave(&call, call.failure);
  lock_world();
  HRESULT result = map(job, flags, root, target, exceptions == NULL ? count : 1);
  unlock_world();
  return leave(&call, result);
}

HRESULT WINAPI BfRemoveMapping(HANDLE job, const WCHAR *root) {
  Call call;
  begin(&call, "BfRemoveMapping");
  arg_text(&call, "virtualizationRootPath", root);
  if (!enter(&call)) return leave(&call, call.failure);
  lock_world();
  HRESULT result = unmap(job, root);
  unlock_world();
  return leave(&call, result);
}

/* None is listed: what a mapping shows is seen at its root. */
HRESULT WINAPI BfGetMappings(uint32_t flags, HANDLE job, const WCHAR *root, void *sid, uint32_t *size, uint32_t *out) {
  Call call;
  begin(&call, "BfGetMappings");
  arg_number(&call, "flags", flags);
  arg_text(&call, "virtualizationRootPath", root);
  if (!enter(&call)) return leave(&call, call.failure);
  (void)job, (void)sid;
  if (size == NULL || out == NULL || *size < 12) return leave(&call, FAILED_WITH(ERROR_INVALID_PARAMETER));
  out[0] = *size = 12;
  out[1] = out[2] = 0;
  return leave(&call, S_OK);
}
