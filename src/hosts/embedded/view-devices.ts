import { openCim } from '../../cim/reader.ts';
import { chooseDevices } from './cim-view.ts';

/** Region files that a view of the CIM needs as devices, in order. Reads headers only. */
export function deviceFilesOf(cim: string): string[] {
  const reader = openCim(cim);
  try {
    return chooseDevices(reader).deviceFiles;
  } finally {
    reader.close();
  }
}
