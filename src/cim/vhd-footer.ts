export function vhdFooterAtEnd(_path: string): boolean {
  return false;
}
