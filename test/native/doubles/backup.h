#ifndef BACKUP_H
#define BACKUP_H

#include <windows.h>
#include <stdint.h>

BOOL WINAPI backup_read(HANDLE file, uint8_t *buffer, DWORD size, DWORD *count, BOOL abort, BOOL security, void **context);
BOOL WINAPI backup_write(HANDLE file, const uint8_t *buffer, DWORD size, DWORD *count, BOOL abort, BOOL security,
                         void **context);

#endif
