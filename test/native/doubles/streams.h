/*
 * What NTFS keeps of a file beside its data, which Wine doesn't: descriptors, extended attributes, reparse data, alternate
 * streams. They are in C:\doubles\streams, under the file's identity, as the backup streams (WIN32_STREAM_ID) they came in.
 */
#ifndef STREAMS_H
#define STREAMS_H

#include "double.h"

/* Gives an open file what backup streams say, or what is said of it. These return Win32 errors. */
DWORD restore_streams(HANDLE file, const uint8_t *bytes, size_t size);
DWORD backup_streams(HANDLE file, Buffer *streams);
/* Forgets what was kept of a file that is about to be deleted. */
void forget_streams(const WCHAR *path);
HANDLE open_for_streams(const WCHAR *path, DWORD access, DWORD disposition);

#endif
