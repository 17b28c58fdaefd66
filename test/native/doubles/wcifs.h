/*
 * Layers in Windows' own format, and the folders that they are imported from and exported to. In a layer, a directory that it
 * touched lists all that is there, what it left as below as placeholders: those have no content here and are named in
 * placeholders.txt. What a touched directory doesn't list is gone. hcsshim relies on it: it removes tombstones after the import.
 */
#ifndef WCIFS_H
#define WCIFS_H

#include "double.h"

/* Layers are folders; parents come topmost first. These return Win32 errors. */
DWORD import_over(const WCHAR *layer, const WCHAR *source, WCHAR *const *parents, uint32_t count);
DWORD export_over(const WCHAR *layer, const WCHAR *target, WCHAR *const *parents, uint32_t count);
/* Puts a layer's files (its folder `Files`) over what those below show in a directory. */
bool show_over(const WCHAR *files, const WCHAR *shown);

#endif
