#include "json.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  const WCHAR *at;
  Json *json;
} Reader;

static bool read_value(Reader *reader, const WCHAR *path);

static void skip_space(Reader *reader) {
  while (*reader->at && wcschr(L" \t\r\n", *reader->at) != NULL) reader->at++;
}

static bool take(Reader *reader, WCHAR wanted) {
  skip_space(reader);
  if (*reader->at != wanted) return false;
  reader->at++;
  return true;
}

/* The escapes that JSON.stringify makes of paths and names. */
static WCHAR *read_string(Reader *reader) {
  if (!take(reader, '"')) return NULL;
  WCHAR *text = allocate((wcslen(reader->at) + 1) * sizeof *text), *to = text;
  for (; *reader->at != '"'; reader->at++) {
    if (*reader->at == '\\') reader->at++;
    if (*reader->at == 0) {
      free(text);
      return NULL;
    }
    *to++ = *reader->at;
  }
  reader->at++;
  return text;
}

static void add_value(Json *json, const WCHAR *path, WCHAR *text) {
  json->values = realloc(json->values, (json->count + 1) * sizeof *json->values);
  if (json->values == NULL) abort();
  json->values[json->count++] = (JsonValue){copy_text(path), text};
}

static bool read_members(Reader *reader, const WCHAR *path) {
  if (take(reader, '}')) return true;
  do {
    skip_space(reader);
    WCHAR *name = read_string(reader);
    if (name == NULL) return false;
    WCHAR *below = allocate((wcslen(path) + wcslen(name) + 2) * sizeof *below);
    wcscat(wcscat(wcscpy(below, path), *path ? L"." : L""), name);
    bool read = take(reader, ':') && read_value(reader, below);
    free(name);
    free(below);
    if (!read) return false;
  } while (take(reader, ','));
  return take(reader, '}');
}

static bool read_items(Reader *reader, const WCHAR *path) {
  if (take(reader, ']')) return true;
  uint32_t index = 0;
  do {
    WCHAR *below = allocate((wcslen(path) + 16) * sizeof *below);
    swprintf(below, wcslen(path) + 16, L"%ls[%u]", path, index++);
    bool read = read_value(reader, below);
    free(below);
    if (!read) return false;
  } while (take(reader, ','));
  return take(reader, ']');
}

static bool read_value(Reader *reader, const WCHAR *path) {
  skip_space(reader);
  if (take(reader, '{')) return read_members(reader, path);
  if (take(reader, '[')) return read_items(reader, path);
  WCHAR *text;
  if (*reader->at == '"') text = read_string(reader);
  else {
    size_t length = wcscspn(reader->at, L",]} \t\r\n");
    text = length == 0 ? NULL : allocate((length + 1) * sizeof *text);
    if (text != NULL) wcsncpy(text, reader->at, length);
    reader->at += length;
  }
  if (text == NULL) return false;
  add_value(reader->json, path, text);
  return true;
}

bool parse_json(const WCHAR *text, Json *json) {
  *json = (Json){0};
  Reader reader = {text, json};
  if (!read_value(&reader, L"")) return false;
  skip_space(&reader);
  return *reader.at == 0;
}

void free_json(Json *json) {
  for (uint32_t at = 0; at < json->count; at++) {
    free(json->values[at].path);
    free(json->values[at].text);
  }
  free(json->values);
  *json = (Json){0};
}

const WCHAR *json_text(const Json *json, const char *path) {
  WCHAR wide[160];
  MultiByteToWideChar(CP_UTF8, 0, path, -1, wide, 160);
  for (uint32_t at = 0; at < json->count; at++)
    if (wcscmp(json->values[at].path, wide) == 0) return json->values[at].text;
  return NULL;
}
