/*
 * Contract double of fltlib.dll: the filters in C:\doubles\filters.txt, "<name> <altitude>" a line, or Windows' own two for
 * containers; before them one of the old kind. Contract:
 * https://learn.microsoft.com/windows/win32/api/fltuser/nf-fltuser-filterfindfirst: one filter at a time, a buffer too
 * small is told what it takes, after the last one there are no more.
 */
#include "double.h"
#include <fltuser.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILTERS L"C:\\doubles\\filters.txt"
#define MAX_FILTERS 16

typedef struct {
  WCHAR name[64], altitude[32];
} Filter;

typedef struct {
  uint32_t magic;
  int count, next;
  Filter filters[MAX_FILTERS];
} Search;

enum { OPEN = 0x46696e64 };

static void add(Search *search, const char *name, const char *altitude) {
  Filter *filter = &search->filters[search->count++];
  swprintf(filter->name, 64, L"%hs", name);
  swprintf(filter->altitude, 32, L"%hs", altitude);
}

static void list(Search *search) {
  char name[64], altitude[32];
  char *text = (char *)read_whole(FILTERS, NULL);
  add(search, "Old", "");
  if (text == NULL) {
    add(search, "bindflt", "409800");
    add(search, "wcifs", "189900");
    return;
  }
  for (char *line = strtok(text, "\r\n"); line != NULL && search->count < MAX_FILTERS; line = strtok(NULL, "\r\n"))
    if (sscanf(line, "%63s %31s", name, altitude) == 2) add(search, name, altitude);
  free(text);
}

static HRESULT give(Search *search, FILTER_INFORMATION_CLASS class, void *buffer, DWORD size, DWORD *returned) {
  if (class != FilterAggregateStandardInformation || returned == NULL) return E_INVALIDARG;
  if (search->next == search->count) return FAILED_WITH(ERROR_NO_MORE_ITEMS);
  const Filter *filter = &search->filters[search->next];
  FILTER_AGGREGATE_STANDARD_INFORMATION *entry = buffer;
  USHORT name = wcslen(filter->name) * 2, altitude = wcslen(filter->altitude) * 2;
  *returned = sizeof *entry + name + altitude;
  if (buffer == NULL || size < *returned) return FAILED_WITH(ERROR_INSUFFICIENT_BUFFER);
  search->next++;
  /* What the API doesn't promise is not zero. */
  memset(buffer, 0xff, size);
  entry->NextEntryOffset = 0;
  entry->Flags = altitude == 0 ? FLTFL_ASI_IS_LEGACYFILTER : FLTFL_ASI_IS_MINIFILTER;
  entry->Type.MiniFilter.FilterNameLength = name;
  entry->Type.MiniFilter.FilterNameBufferOffset = sizeof *entry;
  entry->Type.MiniFilter.FilterAltitudeLength = altitude;
  entry->Type.MiniFilter.FilterAltitudeBufferOffset = sizeof *entry + name;
  memcpy((char *)buffer + sizeof *entry, filter->name, name);
  memcpy((char *)buffer + sizeof *entry + name, filter->altitude, altitude);
  return S_OK;
}

HRESULT WINAPI FilterFindFirst(FILTER_INFORMATION_CLASS class, LPVOID buffer, DWORD size, LPDWORD returned,
                               LPHANDLE out) {
  Call call;
  begin(&call, "FilterFindFirst");
  arg_number(&call, "informationClass", class);
  if (!enter(&call)) return leave(&call, call.failure);
  if (out == NULL) return leave(&call, E_INVALIDARG);
  Search *search = allocate(sizeof *search);
  search->magic = OPEN;
  list(search);
  HRESULT result = give(search, class, buffer, size, returned);
  if (SUCCEEDED(result)) *out = search;
  else free(search);
  return leave(&call, result);
}

HRESULT WINAPI FilterFindNext(HANDLE handle, FILTER_INFORMATION_CLASS class, LPVOID buffer, DWORD size,
                              LPDWORD returned) {
  Call call;
  begin(&call, "FilterFindNext");
  arg_number(&call, "informationClass", class);
  if (!enter(&call)) return leave(&call, call.failure);
  Search *search = handle;
  bool open = search != NULL && search->magic == OPEN;
  return leave(&call, open ? give(search, class, buffer, size, returned) : E_HANDLE);
}

/* What is closed is kept, so that its use can be refused. */
HRESULT WINAPI FilterFindClose(HANDLE handle) {
  Call call;
  begin(&call, "FilterFindClose");
  if (!enter(&call)) return leave(&call, call.failure);
  Search *search = handle;
  if (search == NULL || search->magic != OPEN) return leave(&call, E_HANDLE);
  search->magic = 0;
  return leave(&call, S_OK);
}
