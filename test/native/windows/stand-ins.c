/*
 * One DLL under several names: functions of computecore.dll, virtdisk.dll, offreg.dll, rstrtmgr.dll and advapi32.dll, declared
 * by mingw-w64's headers where they are there. They write down what they are given and answer something fixed; what the
 * DLLs do is none of their business.
 */
#define NO_STRICT
#define _WIN32_WINNT 0x0A00
#include <windows.h>
#include <computecore.h>
#include <restartmanager.h>
#include <stdarg.h>
#include <stdio.h>
#include <virtdisk.h>

#define EXPORT __declspec(dllexport)

/* A line of C:\stand-ins\calls.txt. */
static void note(const char *format, ...) {
  char line[2048];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  FILE *file = fopen("C:\\stand-ins\\calls.txt", "ab");
  if (file == NULL) return;
  fprintf(file, "%s\n", line);
  fclose(file);
}

/*
 * Text that the caller must free; one at a time, so that the next call can tell whether it did. It has more room than it
 * needs, so that nobody else is given the same block right after.
 */
static WCHAR *given;
static const SIZE_T ROOM = 3 << 20;

static void give(PWSTR *out, const WCHAR *text) {
  given = LocalAlloc(LMEM_FIXED, ROOM);
  wcscpy(given, text);
  *out = given;
}

static const char *freed(void) {
  const char *state = given == NULL ? "nothing given" : HeapValidate(GetProcessHeap(), 0, given) ? "leaked" : "freed";
  given = NULL;
  return state;
}

/* computecore.dll */

static const HCS_OPERATION OPERATION = (HCS_OPERATION)0x51;
static const WCHAR *answer;
static HRESULT outcome;
static int waits;

static HRESULT begin(const WCHAR *text, HRESULT result) {
  answer = text;
  outcome = result;
  waits = 0;
  return S_OK;
}

EXPORT HCS_OPERATION WINAPI HcsCreateOperation(const void *context, HCS_OPERATION_COMPLETION callback) {
  note("HcsCreateOperation %d %d", context != NULL, callback != NULL);
  return OPERATION;
}

EXPORT void WINAPI HcsCloseOperation(HCS_OPERATION operation) {
  note("HcsCloseOperation %p %s", operation, freed());
}

EXPORT HRESULT WINAPI HcsWaitForOperationResult(HCS_OPERATION operation, DWORD milliseconds, PWSTR *result) {
  note("HcsWaitForOperationResult %p %lu", operation, milliseconds);
  if (waits++ == 0) return (HRESULT)0x80370118;
  if (answer != NULL) give(result, answer);
  return outcome;
}

EXPORT HRESULT WINAPI HcsEnumerateComputeSystems(PCWSTR query, HCS_OPERATION operation) {
  note("HcsEnumerateComputeSystems %ls %p", query == NULL ? L"null" : query, operation);
  return begin(L"[{\"Id\":\"vm-\u00e9\"}]", S_OK);
}

EXPORT HRESULT WINAPI HcsOpenComputeSystem(PCWSTR id, DWORD access, HCS_SYSTEM *system) {
  note("HcsOpenComputeSystem %ls 0x%lx", id, access);
  if (wcscmp(id, L"nobody") == 0) return (HRESULT)0x8037010e;
  *system = (HCS_SYSTEM)0x7fff00000052;
  return S_OK;
}

EXPORT HRESULT WINAPI HcsGetComputeSystemProperties(HCS_SYSTEM system, HCS_OPERATION operation, PCWSTR query) {
  note("HcsGetComputeSystemProperties %p %p %ls", system, operation, query);
  return begin(L"no JSON", S_OK);
}

EXPORT HRESULT WINAPI HcsModifyComputeSystem(HCS_SYSTEM system, HCS_OPERATION operation, PCWSTR document, HANDLE identity) {
  note("HcsModifyComputeSystem %p %p %ls %p", system, operation, document, identity);
  if (wcsstr(document, L"Remove") != NULL) return begin(NULL, S_OK);
  return begin(L"{\"Error\":-2147024864,\"ErrorMessage\":\"disk \\\"x\\\" is in use\"}", (HRESULT)0x80070020);
}

EXPORT void WINAPI HcsCloseComputeSystem(HCS_SYSTEM system) {
  note("HcsCloseComputeSystem %p", system);
}

EXPORT HRESULT WINAPI HcsGrantVmGroupAccess(PCWSTR file) {
  note("HcsGrantVmGroupAccess %ls", file);
  return S_OK;
}

/* virtdisk.dll */

/* The header's lacks the physical sector size. */
typedef struct {
  CREATE_VIRTUAL_DISK_VERSION version;
  union {
    struct {
      GUID id;
      ULONGLONG size;
      ULONG block, sector, physical_sector;
      PCWSTR parent, source;
      OPEN_VIRTUAL_DISK_FLAG flags;
      VIRTUAL_STORAGE_TYPE parent_type, source_type;
      GUID resiliency;
    };
  };
} CreateParameters;

EXPORT DWORD WINAPI CreateVirtualDisk(PVIRTUAL_STORAGE_TYPE type, PCWSTR path, VIRTUAL_DISK_ACCESS_MASK access,
                                      PSECURITY_DESCRIPTOR security, CREATE_VIRTUAL_DISK_FLAG flags, ULONG provider,
                                      PCREATE_VIRTUAL_DISK_PARAMETERS given_parameters, LPOVERLAPPED overlapped,
                                      PHANDLE out) {
  const CreateParameters *parameters = (const void *)given_parameters;
  note("CreateVirtualDisk %lu %08lx %ls 0x%x %d %d %lu v%d size %llu block %lu parent %ls open 0x%x %d", type->DeviceId,
       type->VendorId.Data1, path, access, security != NULL, flags, provider, parameters->version, parameters->size,
       parameters->block, parameters->parent == NULL ? L"null" : parameters->parent, parameters->flags, overlapped != NULL);
  if (wcsstr(path, L"exists") != NULL) return ERROR_FILE_EXISTS;
  *out = CreateEventW(NULL, TRUE, FALSE, NULL);
  return ERROR_SUCCESS;
}

EXPORT DWORD WINAPI OpenVirtualDisk(PVIRTUAL_STORAGE_TYPE type, PCWSTR path, VIRTUAL_DISK_ACCESS_MASK access,
                                    OPEN_VIRTUAL_DISK_FLAG flags, POPEN_VIRTUAL_DISK_PARAMETERS parameters, PHANDLE out) {
  note("OpenVirtualDisk %lu %ls 0x%x 0x%x v%d read-only %d", type->DeviceId, path, access, flags, parameters->Version,
       parameters->Version2.ReadOnly);
  *out = CreateEventW(NULL, TRUE, FALSE, NULL);
  return ERROR_SUCCESS;
}

EXPORT DWORD WINAPI AttachVirtualDisk(HANDLE disk, PSECURITY_DESCRIPTOR security, ATTACH_VIRTUAL_DISK_FLAG flags,
                                      ULONG provider, PATTACH_VIRTUAL_DISK_PARAMETERS parameters, LPOVERLAPPED overlapped) {
  note("AttachVirtualDisk %d %d 0x%x %lu v%d %d", disk != NULL, security != NULL, flags, provider, parameters->Version,
       overlapped != NULL);
  return ERROR_SUCCESS;
}

EXPORT DWORD WINAPI DetachVirtualDisk(HANDLE disk, DETACH_VIRTUAL_DISK_FLAG flags, ULONG provider) {
  note("DetachVirtualDisk %d %d %lu", disk != NULL, flags, provider);
  return ERROR_NOT_READY;
}

EXPORT DWORD WINAPI GetVirtualDiskPhysicalPath(HANDLE disk, PULONG bytes, PWSTR path) {
  note("GetVirtualDiskPhysicalPath %d %lu", disk != NULL, *bytes);
  wcscpy(path, L"\\\\.\\PhysicalDrive3");
  return ERROR_SUCCESS;
}

/* offreg.dll, which has no header here. */

static const BYTE VALUE[] = {'v', 0, 0, 0};

EXPORT DWORD WINAPI ORCreateHive(HANDLE *hive) {
  *hive = (HANDLE)0x10;
  return ERROR_SUCCESS;
}

EXPORT DWORD WINAPI OROpenHive(PCWSTR path, HANDLE *hive) {
  note("OROpenHive %ls", path);
  if (wcsstr(path, L"broken") != NULL) return ERROR_BADDB;
  *hive = wcsstr(path, L"base") != NULL ? (HANDLE)0x11 : (HANDLE)0x12;
  return ERROR_SUCCESS;
}

EXPORT DWORD WINAPI ORCloseHive(HANDLE hive) {
  note("ORCloseHive %p", hive);
  return ERROR_SUCCESS;
}

EXPORT DWORD WINAPI ORMergeHives(const HANDLE *hives, ULONG count, HANDLE *merged) {
  note("ORMergeHives %lu %p %p", count, hives[0], hives[1]);
  *merged = (HANDLE)0x13;
  return ERROR_SUCCESS;
}

EXPORT DWORD WINAPI ORSaveHive(HANDLE hive, PCWSTR path, DWORD major, DWORD minor) {
  note("ORSaveHive %p %ls %lu.%lu", hive, path, major, minor);
  return ERROR_SUCCESS;
}

EXPORT DWORD WINAPI OROpenKey(HANDLE key, PCWSTR path, HANDLE *out) {
  note("OROpenKey %p %ls", key, path);
  *out = (HANDLE)0x14;
  return ERROR_SUCCESS;
}

EXPORT DWORD WINAPI ORCreateKey(HANDLE key, PCWSTR path, PCWSTR class, DWORD options, PSECURITY_DESCRIPTOR security,
                                HANDLE *out, DWORD *disposition) {
  note("ORCreateKey %p %ls %d %lu %d", key, path, class != NULL, options, security != NULL);
  *out = (HANDLE)0x15;
  *disposition = 1;
  return ERROR_SUCCESS;
}

EXPORT DWORD WINAPI ORCloseKey(HANDLE key) {
  note("ORCloseKey %p", key);
  return ERROR_SUCCESS;
}

EXPORT DWORD WINAPI ORDeleteKey(HANDLE key, PCWSTR path) {
  note("ORDeleteKey %p %ls", key, path == NULL ? L"null" : path);
  return ERROR_SUCCESS;
}

EXPORT DWORD WINAPI ORGetValue(HANDLE key, PCWSTR path, PCWSTR name, DWORD *type, BYTE *data, DWORD *size) {
  note("ORGetValue %p %ls %ls %d %lu", key, path == NULL ? L"null" : path, name, data != NULL, *size);
  if (wcscmp(name, L"absent") == 0) return ERROR_FILE_NOT_FOUND;
  DWORD room = *size;
  *type = REG_SZ;
  *size = sizeof VALUE;
  if (data == NULL) return ERROR_SUCCESS;
  if (room < sizeof VALUE) return ERROR_MORE_DATA;
  memcpy(data, VALUE, sizeof VALUE);
  return ERROR_SUCCESS;
}

EXPORT DWORD WINAPI ORSetValue(HANDLE key, PCWSTR name, DWORD type, const BYTE *data, DWORD size) {
  note("ORSetValue %p %ls %lu %02x..%02x %lu", key, name, type, data[0], data[size - 1], size);
  return ERROR_SUCCESS;
}

/* rstrtmgr.dll: more processes than anybody makes room for at first. */

enum { PROCESSES = 20 };

EXPORT DWORD WINAPI RmStartSession(DWORD *session, DWORD flags, WCHAR *key) {
  note("RmStartSession %lu", flags);
  wcscpy(key, L"0123456789abcdef0123456789abcdef");
  *session = 5;
  return ERROR_SUCCESS;
}

EXPORT DWORD WINAPI RmRegisterResources(DWORD session, UINT files, LPCWSTR *names, UINT processes,
                                        RM_UNIQUE_PROCESS *process, UINT services, LPCWSTR *service) {
  note("RmRegisterResources %lu %u %ls %ls %u %d %u %d", session, files, names[0], names[1], processes, process != NULL,
       services, service != NULL);
  return ERROR_SUCCESS;
}

EXPORT DWORD WINAPI RmGetList(DWORD session, UINT *needed, UINT *count, RM_PROCESS_INFO *list, LPDWORD reasons) {
  note("RmGetList %lu %u", session, *count);
  *needed = PROCESSES;
  *reasons = 0;
  if (*count < PROCESSES) return ERROR_MORE_DATA;
  *count = PROCESSES;
  memset(list, 0, PROCESSES * sizeof *list);
  for (unsigned at = 0; at < PROCESSES; at++) {
    list[at].Process.dwProcessId = 1000 + at;
    swprintf(list[at].strAppName, 255, L"Program %u", at);
    if (at == 1) wcscpy(list[at].strServiceShortName, L"WinDefend");
  }
  return ERROR_SUCCESS;
}

EXPORT DWORD WINAPI RmEndSession(DWORD session) {
  note("RmEndSession %lu", session);
  return ERROR_SUCCESS;
}

/* advapi32.dll */

EXPORT BOOL WINAPI ChangeServiceConfigW(SC_HANDLE service, DWORD type, DWORD start, DWORD control, LPCWSTR path,
                                        LPCWSTR group, LPDWORD tag, LPCWSTR dependencies, LPCWSTR account,
                                        LPCWSTR password, LPCWSTR display) {
  note("ChangeServiceConfigW %p 0x%lx %lu %lu %ls %d %d %d %d %d %ls", service, type, start, control, path, group != NULL,
       tag != NULL, dependencies != NULL, account != NULL, password != NULL, display);
  return TRUE;
}

EXPORT BOOL WINAPI ChangeServiceConfig2W(SC_HANDLE service, DWORD level, LPVOID info) {
  const SERVICE_FAILURE_ACTIONSW *actions = info;
  char waits[256] = "";
  switch (level) {
    case SERVICE_CONFIG_DESCRIPTION:
      note("description %p %ls", service, ((SERVICE_DESCRIPTIONW *)info)->lpDescription);
      return TRUE;
    case SERVICE_CONFIG_FAILURE_ACTIONS:
      for (DWORD at = 0; at < actions->cActions; at++)
        snprintf(waits + strlen(waits), sizeof waits - strlen(waits), " %s %lu",
                 actions->lpsaActions[at].Type == SC_ACTION_RESTART ? "restart" : "?", actions->lpsaActions[at].Delay);
      note("failure actions %lu %d %d%s", actions->dwResetPeriod, actions->lpRebootMsg != NULL, actions->lpCommand != NULL,
           waits);
      return TRUE;
    case SERVICE_CONFIG_FAILURE_ACTIONS_FLAG:
      note("failure flag %d", ((SERVICE_FAILURE_ACTIONS_FLAG *)info)->fFailureActionsOnNonCrashFailures);
      return TRUE;
    case SERVICE_CONFIG_PRESHUTDOWN_INFO:
      note("preshutdown %lu", ((SERVICE_PRESHUTDOWN_INFO *)info)->dwPreshutdownTimeout);
      return TRUE;
    default:
      SetLastError(ERROR_INVALID_LEVEL);
      return FALSE;
  }
}
