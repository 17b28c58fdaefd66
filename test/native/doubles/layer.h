/* What the layer calls of vmcompute.dll and computestorage.dll have in common. They return Win32 errors. */
#ifndef LAYER_H
#define LAYER_H

#include "volume.h"

/* All of them enabled in this process, as importing and processing layers needs. */
bool has_privileges(void);
/* The strings that have this name in a JSON document, in order; for the few documents that these calls take. */
uint32_t json_texts(const WCHAR *json, const WCHAR *name, WCHAR **texts, uint32_t most);

/* Parents topmost first. */
DWORD import_layer(const WCHAR *layer, const WCHAR *source, WCHAR *const *parents, uint32_t count);
DWORD export_layer(const WCHAR *layer, const WCHAR *target, WCHAR *const *parents, uint32_t count);
DWORD destroy_layer(const WCHAR *layer);
/* What Windows adds to a base layer, or to its UtilityVM: blank.vhdx or SystemTemplate.vhdx and their bases. */
DWORD process_image(const WCHAR *layer, bool utility_vm);

#endif
