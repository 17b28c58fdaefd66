/** OCI documents cimlet reads, and what choosing among them yields. Source: OCI image-spec v1.1. */

export interface Platform {
  os: string;
  architecture: string;
  variant?: string | undefined;
  /** `os.version`, e.g. 10.0.26100.1742. */
  osVersion?: string | undefined;
  osFeatures?: string[] | undefined;
}

/** Part of `spec.platform`; what is absent doesn't constrain. */
export type PlatformWish = Partial<Platform>;
