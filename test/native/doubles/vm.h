/* What a utility VM of the computecore double has: its devices, and what its guest has made of them. */
#ifndef VM_H
#define VM_H

#include "double.h"

/* `folder`: where the VM's things are kept, a file each. `guest`: whether HCS holds the connection to its guest. */
HRESULT modify_vm(const WCHAR *folder, bool guest, const WCHAR *document);

#endif
