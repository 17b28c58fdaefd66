/*
 * The images that the double of cimfs.dll writes. Headers, region files and object ID files are where and as public
 * readers expect them (version 3.0, as Windows writes today); the body is this double's own. A block CIM is one file.
 */
#ifndef CIM_IMAGE_H
#define CIM_IMAGE_H

#include "double.h"

#define INVALID FAILED_WITH(ERROR_INVALID_PARAMETER)

enum { HASH_SIZE = 32 };
enum { CREATE_BLOCK_DEVICE = 4, CREATE_SINGLE_FILE = 8, CREATE_CONSISTENT = 0x10, CREATE_VERIFIED = 0x40 };

typedef struct {
  uint32_t size;
  uint8_t *bytes;
} Blob;

typedef struct Image Image;

typedef struct Stream {
  struct Stream *next;
  WCHAR *name;
  uint64_t size, offset;
  uint32_t region;
  /* Whose region it is in. */
  Image *image;
} Stream;

typedef struct File {
  struct File *next;
  uint32_t id, attributes;
  int64_t times[4];
  Blob security, reparse, attributes_extended;
  Stream data;
  Stream *streams;
} File;

typedef struct Node {
  struct Node *parent, *children, *next;
  WCHAR *name;
  /* NULL for a tombstone and for a merge link that is not resolved. */
  File *file;
  WCHAR *merge_link;
} Node;

typedef struct {
  WCHAR *path;
  uint8_t identity[32];
} Source;

struct Image {
  /* Forked: the directory and `<name>.cim` in it. Block: the file, and the name inside. */
  WCHAR *directory, *name;
  bool block;
  uint32_t flags;
  Node *root;
  File *files;
  uint32_t next_id;
  /* Forked only: the sets of the images below, then the own one; each has one region. */
  GUID *regions;
  uint32_t region_count;
  uint64_t data_end;
  Source *sources;
  uint32_t source_count;
  /* Of a merged image that is being written: its sources are all sealed, or none is. */
  uint8_t source_sealed;
  uint8_t sealed;
  uint8_t root_hash[32], identity[32];
};

Image *new_image(const WCHAR *directory, const WCHAR *name, bool block, uint32_t flags);
/* An HRESULT; what is there is checked. */
HRESULT load_image(const WCHAR *directory, const WCHAR *name, bool block, Image **image);
/* Adds a region of its own to an image that is to be written, and makes its files. */
HRESULT open_region(Image *image);
HRESULT save_image(Image *image);
HRESULT seal_image(Image *image);
/* Compares a sealed image's bytes with its root hash. */
bool is_intact(Image *image);

Node *find_node(Image *image, const WCHAR *path);
/* The node for a name below an existing directory, made when it isn't there; NULL with GetLastError otherwise. */
Node *make_node(Image *image, const WCHAR *path);
Node *child_of(Node *directory, const WCHAR *name);
void unlink_node(Node *node);
File *new_file(Image *image);
bool is_folder(const Node *node);

/* The tree that merged images show: topmost first, as they were added. Sources must stay loaded. */
HRESULT merge_images(Image *merged, Image **sources, uint32_t count);

HANDLE open_data(const Stream *stream, DWORD access);
/* Writes the files below `directory`, and what they are made of as JSON to `listing`. */
bool extract(const Node *root, const WCHAR *directory, Buffer *listing);

#endif
