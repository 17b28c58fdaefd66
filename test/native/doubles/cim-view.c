/* What images show: merged trees, and their files in a directory. */
#include "cim-image.h"
#include <stdlib.h>
#include <string.h>

static void lay_over(Image *merged, Node *below, const Node *above) {
  for (const Node *child = above->children; child != NULL; child = child->next) {
    Node *shown = child_of(below, child->name);
    if (child->file == NULL) {
      if (shown != NULL) unlink_node(shown);
      continue;
    }
    bool joins = shown != NULL && is_folder(shown) && is_folder(child);
    if (shown != NULL && !joins) unlink_node(shown);
    if (!joins) {
      shown = allocate(sizeof *shown);
      shown->parent = below;
      Node **place = &below->children;
      while (*place != NULL && _wcsicmp((*place)->name, child->name) < 0) place = &(*place)->next;
      shown->next = *place;
      *place = shown;
    }
    shown->name = child->name;
    shown->file = child->file;
    lay_over(merged, shown, child);
  }
}

/* Links are looked up once all files of their image are there; one whose target nobody has can't be shown. */
static bool resolve_links(Image *merged, Node *below, const Node *above) {
  for (const Node *child = above->children; child != NULL; child = child->next) {
    if (child->merge_link != NULL) {
      Node *target = find_node(merged, child->merge_link);
      if (target == NULL || target->file == NULL || is_folder(target)) return false;
      Node *link = child_of(below, child->name);
      if (link != NULL) unlink_node(link);
      link = allocate(sizeof *link);
      link->name = child->name;
      link->file = target->file;
      link->parent = below;
      link->next = below->children;
      below->children = link;
    } else if (child->file != NULL && is_folder(child)) {
      Node *directory = child_of(below, child->name);
      if (directory != NULL && !resolve_links(merged, directory, child)) return false;
    }
  }
  return true;
}

HRESULT merge_images(Image *merged, Image **sources, uint32_t count) {
  for (uint32_t at = count; at-- > 0;) {
    merged->root->file = sources[at]->root->file;
    lay_over(merged, merged->root, sources[at]->root);
    if (!resolve_links(merged, merged->root, sources[at]->root)) return FAILED_WITH(ERROR_FILE_NOT_FOUND);
  }
  return S_OK;
}

static bool copy_data(const Stream *stream, HANDLE to, Buffer *hex) {
  if (stream->size == 0) return true;
  HANDLE from = open_data(stream, GENERIC_READ);
  if (from == INVALID_HANDLE_VALUE) return false;
  static uint8_t bytes[1 << 16];
  LARGE_INTEGER place = {.QuadPart = (LONGLONG)stream->offset};
  bool copied = SetFilePointerEx(from, place, NULL, FILE_BEGIN);
  for (uint64_t left = stream->size; copied && left > 0;) {
    DWORD want = left < sizeof bytes ? (DWORD)left : sizeof bytes, got, put;
    copied = ReadFile(from, bytes, want, &got, NULL) && got == want;
    if (copied && to != NULL) copied = WriteFile(to, bytes, got, &put, NULL) && put == got;
    for (DWORD at = 0; copied && hex != NULL && at < got; at++) put_format(hex, "%02x", bytes[at]);
    left -= want;
  }
  CloseHandle(from);
  return copied;
}

static void list_hex(Buffer *listing, const char *name, Blob blob) {
  if (blob.size == 0) return;
  put_format(listing, ",\"%s\":\"", name);
  for (uint32_t at = 0; at < blob.size; at++) put_format(listing, "%02x", blob.bytes[at]);
  put_text(listing, "\"");
}

static bool list_file(Buffer *listing, const WCHAR *path, const File *file) {
  put_text(listing, listing->text[listing->length - 1] == '[' ? "\n{\"path\":" : ",\n{\"path\":");
  put_json(listing, path);
  put_format(listing, ",\"id\":%u,\"attributes\":%u,\"size\":%llu,\"times\":[\"%lld\",\"%lld\",\"%lld\",\"%lld\"]",
             file->id, file->attributes, (unsigned long long)file->data.size, (long long)file->times[0],
             (long long)file->times[1], (long long)file->times[2], (long long)file->times[3]);
  list_hex(listing, "security", file->security);
  list_hex(listing, "reparse", file->reparse);
  list_hex(listing, "extendedAttributes", file->attributes_extended);
  for (const Stream *stream = file->streams; stream != NULL; stream = stream->next) {
    put_text(listing, stream == file->streams ? ",\"streams\":{" : ",");
    put_json(listing, stream->name);
    put_text(listing, ":\"");
    if (!copy_data(stream, NULL, listing)) return false;
    put_text(listing, stream->next == NULL ? "\"}" : "\"");
  }
  put_text(listing, "}");
  return true;
}

static bool extract_file(const File *file, const WCHAR *path) {
  HANDLE to = CreateFileW(path, GENERIC_WRITE, 0, NULL, CREATE_ALWAYS, FILE_ATTRIBUTE_NORMAL, NULL);
  if (to == INVALID_HANDLE_VALUE) return false;
  bool extracted = copy_data(&file->data, to, NULL);
  const FILETIME *written = (const FILETIME *)&file->times[1];
  if (file->times[1] > 0) SetFileTime(to, NULL, NULL, written);
  CloseHandle(to);
  return extracted;
}

/* As files have them: when they were last written, which Wine takes for when they were made. */
static void set_times(const WCHAR *directory, const File *file) {
  static const int64_t LONG_AGO = 116444736000000000;
  int64_t written = file->times[1] > 0 ? file->times[1] : LONG_AGO;
  HANDLE handle =
      CreateFileW(directory, FILE_WRITE_ATTRIBUTES, 7, NULL, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, NULL);
  if (handle == INVALID_HANDLE_VALUE) return;
  SetFileTime(handle, NULL, NULL, (const FILETIME *)&written);
  CloseHandle(handle);
}

static bool extract_node(const Node *node, const WCHAR *path, const WCHAR *shown, Buffer *listing) {
  if (node->file == NULL) return true;
  bool extracted = list_file(listing, shown, node->file) &&
                   (is_folder(node) ? make_directories(path) : extract_file(node->file, path));
  for (const Node *child = node->children; child != NULL && extracted; child = child->next) {
    WCHAR *below = join_path(path, child->name);
    WCHAR *name = *shown ? join_path(shown, child->name) : copy_text(child->name);
    extracted = extract_node(child, below, name, listing);
    free(below);
    free(name);
  }
  if (is_folder(node)) set_times(path, node->file);
  return extracted;
}

bool extract(const Node *root, const WCHAR *directory, Buffer *listing) {
  return extract_node(root, directory, L"", listing);
}
