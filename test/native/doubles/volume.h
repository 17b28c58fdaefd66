/*
 * Volumes of a Windows world, and the disks and filters that they come from. A volume is an entry volume{guid} beside
 * the drives of the Wine prefix: Wine finds \\?\Volume{guid}\ there, in every process, and it outlives them all. A CIM's
 * is a directory; a disk's is a symbolic link to its contents, or to those merged with parents while a filter is
 * attached. Mount points are symbolic links to the entry, which Wine shows as it shows Windows' mount points.
 */
#ifndef VOLUME_H
#define VOLUME_H

#include "double.h"

/* The entry's path. */
WCHAR *volume_directory(const GUID *volume);
/* Reads \\?\Volume{guid}, whatever follows it. */
bool volume_in_path(const WCHAR *path, GUID *volume);
bool is_volume(const GUID *volume);
/* A file of C:\doubles\<kind> named after the volume. */
WCHAR *volume_record(const WCHAR *kind, const GUID *volume, const WCHAR *suffix);

/* The target of a symbolic link as a path of this world; NULL when it isn't one. */
WCHAR *link_target(const WCHAR *path);
bool make_link(const WCHAR *path, const WCHAR *target);
bool remove_link(const WCHAR *path);
bool copy_tree(const WCHAR *from, const WCHAR *to);

/* A virtual disk's file says only what it would be; its contents are in C:\doubles\disks. */
typedef struct {
  uint64_t size;
  /* Bytes that its file system covers; 0 for a disk without one. */
  uint64_t volume;
} Disk;

bool read_disk(const WCHAR *file, Disk *disk);
bool write_disk(const WCHAR *file, const Disk *disk);
/* An empty disk at a path where none was. */
bool create_disk(const WCHAR *file, const Disk *disk);
/* An ID derived from a name, without regard to case. */
void name_guid(const WCHAR *name, GUID *guid);
/* The volume a disk has while it is attached: always the same for a file. */
void disk_volume(const WCHAR *file, GUID *volume);
/* These return Win32 errors. An attached disk that is not permanent goes with the process. */
DWORD attach_disk(const WCHAR *file, bool permanent);
DWORD detach_disk(const WCHAR *file);
/* The disk a volume is of, or NULL. */
WCHAR *disk_of_volume(const GUID *volume);

/* Parents topmost first; each is a directory whose files are to show. */
DWORD attach_filter(const GUID *volume, const WCHAR *type, WCHAR **parents, uint32_t count);
DWORD detach_filter(const GUID *volume, const WCHAR *type);
bool has_filter(const GUID *volume);
/* Whether an attached filter shows this volume's files. */
bool is_shown(const GUID *volume);

#endif
