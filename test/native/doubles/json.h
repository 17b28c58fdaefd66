/* A JSON document taken apart: each string, number, boolean and null in it under its path, such as "Layers[0].Path". */
#ifndef JSON_H
#define JSON_H

#include "double.h"

typedef struct {
  WCHAR *path;
  /* Strings without quotes and escapes, anything else as it is written. */
  WCHAR *text;
} JsonValue;

typedef struct {
  JsonValue *values;
  uint32_t count;
} Json;

/* False for what is no JSON; free it either way. */
bool parse_json(const WCHAR *text, Json *json);
void free_json(Json *json);
/* NULL when there is nothing under the path. */
const WCHAR *json_text(const Json *json, const char *path);

#endif
