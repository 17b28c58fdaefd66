/* Generated from schemas/ by `npm run types:generate`; do not edit. */

/**
 * Any document that cimlet reads.
 */
export type Document = Image | LayerChain | Mount | AgentConfig;
/**
 * Resources that must be ready first, besides those the spec refers to.
 */
export type DependsOn = Dependency[];

/**
 * A container image: where it comes from, which platform of it is wanted, and what it must be.
 */
export interface Image {
  /**
   * The version of the manifest API.
   */
  apiVersion: 'cimlet.dev/v1alpha1';
  /**
   * The kind of resource.
   */
  kind: 'Image';
  metadata: Metadata;
  spec: ImageSpec;
}
/**
 * Names the resource, and carries labels and annotations.
 */
export interface Metadata {
  /**
   * A resource's name: lowercase letters, digits, `-` and `.`, beginning and ending with a letter or digit, at most 253 characters.
   */
  name: string;
  /**
   * Keys and values to select and group resources by. cimlet gives them no meaning.
   */
  labels?: {
    [k: string]: string;
  };
  /**
   * Keys and values for tools and people. Keys that begin with `cimlet.dev/` are cimlet's own: `cimlet.dev/prune` and `cimlet.dev/prune-confirmed`.
   */
  annotations?: {
    /**
     * `disabled` keeps the resource on the host when it is removed from the manifests.
     */
    'cimlet.dev/prune'?: 'enabled' | 'disabled';
    /**
     * On a resource that stays: confirms a large prune. The revision that what goes was last declared in, as the agent's event `PruneRefused` names it; several by commas.
     */
    'cimlet.dev/prune-confirmed'?: string;
    [k: string]: string | 'enabled' | 'disabled' | undefined;
  };
}
/**
 * The image wanted.
 */
export interface ImageSpec {
  source: ImageSource;
  platform?: PlatformSpec;
  /**
   * When the source is asked: `Always` at every reconciliation, `IfNotPresent` when the image isn't here yet, `Never`.
   */
  pullPolicy?: 'Always' | 'IfNotPresent' | 'Never';
  /**
   * How often a tag is resolved again; a digest never is.
   */
  interval?: string;
  /**
   * Pins the image: when the source resolves to anything else, the Image stalls.
   */
  digest?: string;
  policy?: TagPolicy;
  /**
   * Where layers come from that name their own URLs: the registry first, those URLs first, or never from the URLs.
   */
  foreignLayers?: 'registry-first' | 'urls-first' | 'never';
  verify?: ImageVerification;
  /**
   * Keeps the resource and what depends on it as they are. `true`, or who suspended it and why.
   */
  suspend?: boolean | Suspension;
  dependsOn?: DependsOn;
  retry?: Retry;
  /**
   * Longest time one attempt may take; no limit when omitted.
   */
  timeout?: string;
  /**
   * What to do when the host no longer matches what was applied: `Repair` it, or only `Report` it.
   */
  driftPolicy?: 'Repair' | 'Report';
  /**
   * What happens on the host when the resource is deleted: `Delete` removes what was made for it, `Orphan` leaves it.
   */
  deletionPolicy?: 'Delete' | 'Orphan';
  hosts?: HostSelector;
}
/**
 * Where the image comes from: exactly one of registry, ociLayout, dockerArchive.
 */
export interface ImageSource {
  /**
   * Reference to an image in a registry: host, repository, and tag or digest, e.g. `mcr.microsoft.com/windows/nanoserver:ltsc2025`.
   */
  registry?: string;
  /**
   * OCI image layout: a directory or a .tar of one, relative to the manifest's folder.
   */
  ociLayout?: string;
  /**
   * A .tar written by `docker save`, relative to the manifest's folder.
   */
  dockerArchive?: string;
}
/**
 * The platform wanted of an image that offers several. Default: what this host can run.
 */
export interface PlatformSpec {
  /**
   * Operating system.
   */
  os?: 'windows' | 'linux';
  /**
   * Processor architecture by its Go name: amd64, arm64.
   */
  architecture?: string;
  /**
   * Variant of the architecture, e.g. v8.
   */
  variant?: string;
  /**
   * Windows version as major.minor.build or major.minor.build.revision, e.g. 10.0.26100.
   */
  osVersion?: string;
  /**
   * Features of the operating system that the image requires, e.g. win32k.
   */
  osFeatures?: string[];
}
/**
 * Picks among the repository's tags: exactly one of semver, regex.
 */
export interface TagPolicy {
  /**
   * The highest version in this range, e.g. `>=1.2 <2`.
   */
  semver?: string;
  /**
   * The last of the tags that match this regular expression, by `order`.
   */
  regex?: string;
  /**
   * How matching tags are ordered.
   */
  order?: 'numerical' | 'alphabetical';
}
/**
 * Signatures the image must carry: exactly one of cosign, notation.
 */
export interface ImageVerification {
  cosign?: CosignVerification;
  notation?: NotationVerification;
}
/**
 * A cosign signature, by one of the keys or of the identities.
 */
export interface CosignVerification {
  /**
   * Public keys (PEM files), relative to the manifest's folder.
   *
   * @minItems 1
   *
   * Items: A path on this machine; a relative one is relative to the manifest's folder.
   */
  keys?: string[];
  /**
   * Identities of keyless signatures.
   *
   * @minItems 1
   */
  identities?: SignerIdentity[];
  /**
   * Who vouches for identities: trusted_root.json of a Sigstore of one's own, relative to the manifest's folder. Default: the public Sigstore.
   */
  trustedRoot?: string;
}
/**
 * One identity: who vouched for it, and its name.
 */
export interface SignerIdentity {
  /**
   * OpenID Connect issuer of the certificate.
   */
  issuer: string;
  /**
   * Subject of the certificate: an e-mail address or workflow URI.
   */
  subject: string;
}
/**
 * A Notary Project signature.
 */
export interface NotationVerification {
  /**
   * Trust policy file (JSON), relative to the manifest's folder.
   */
  trustPolicy: string;
  /**
   * Trust store directory, relative to the manifest's folder.
   */
  trustStore: string;
}
export interface Suspension {
  /**
   * Why it is suspended; shown in plans and status.
   */
  reason: string;
  /**
   * Who suspended it.
   */
  by?: string;
}
/**
 * One resource that must be ready first.
 */
export interface Dependency {
  /**
   * A kind of resource.
   */
  kind: 'Image' | 'LayerChain' | 'Mount';
  /**
   * A resource's name: lowercase letters, digits, `-` and `.`, beginning and ending with a letter or digit, at most 253 characters.
   */
  name: string;
}
/**
 * What happens after a failure that may pass: how often it is tried again, and how long after.
 */
export interface Retry {
  /**
   * Attempts after the first one; 0 means none.
   */
  limit?: number;
  /**
   * Time before the first retry, doubled before each further one until it is a minute.
   */
  backoff?: string;
}
/**
 * The hosts the resource is for; all when omitted.
 */
export interface HostSelector {
  /**
   * Labels (of cimlet.yaml) the host must carry, all of them.
   */
  matchLabels: {
    [k: string]: string;
  };
}
/**
 * A stack of layers, base first, unpacked and committed on the host in one format.
 */
export interface LayerChain {
  /**
   * The version of the manifest API.
   */
  apiVersion: 'cimlet.dev/v1alpha1';
  /**
   * The kind of resource.
   */
  kind: 'LayerChain';
  metadata: Metadata;
  spec: LayerChainSpec;
}
/**
 * The layers wanted.
 */
export interface LayerChainSpec {
  /**
   * How layers are stored: ForkedCIM, BlockCIM or WCIFS for Windows images, LCOW for Linux images. Default: chosen once by the image's os and what the host can do, and recorded in the status.
   */
  format?: 'ForkedCIM' | 'BlockCIM' | 'WCIFS' | 'LCOW';
  /**
   * The layers, base first.
   *
   * @minItems 1
   */
  layers: ChainLayer[];
  /**
   * Writes a merged CIM over the layers, through which a BlockCIM chain of two layers or more is shown. Default: true for such a chain; others are not merged.
   */
  merge?: boolean;
  /**
   * `Verified` seals the layers and the merged CIM; the root hash lands in the status. Layers are sealed all or none: chains that share a base layer are all sealed when one of them wants it, and nothing is unsealed again. BlockCIM and LCOW only.
   */
  integrity?: 'None' | 'Verified';
  /**
   * Ends layers and merged CIM with a VHD footer, so that they can be attached as disks. BlockCIM and LCOW only.
   */
  vhdFooter?: boolean;
  /**
   * Keeps the resource and what depends on it as they are. `true`, or who suspended it and why.
   */
  suspend?: boolean | Suspension;
  dependsOn?: DependsOn;
  retry?: Retry;
  /**
   * Longest time one attempt may take; no limit when omitted.
   */
  timeout?: string;
  /**
   * What to do when the host no longer matches what was applied: `Repair` it, or only `Report` it.
   */
  driftPolicy?: 'Repair' | 'Report';
  /**
   * What happens on the host when the resource is deleted: `Delete` removes what was made for it, `Orphan` leaves it.
   */
  deletionPolicy?: 'Delete' | 'Orphan';
  hosts?: HostSelector;
}
/**
 * All layers of an image, or one layer from an archive: exactly one of image, archive.
 */
export interface ChainLayer {
  /**
   * Name of an Image: all of its layers.
   */
  image?: string;
  /**
   * One layer as a tar archive (plain, gzip or zstd), relative to the manifest's folder.
   */
  archive?: string;
  /**
   * Digest the archive must have, of its bytes as they are.
   */
  digest?: string;
}
/**
 * A layer chain shown at a path of this host.
 */
export interface Mount {
  /**
   * The version of the manifest API.
   */
  apiVersion: 'cimlet.dev/v1alpha1';
  /**
   * The kind of resource.
   */
  kind: 'Mount';
  metadata: Metadata;
  spec: MountSpec;
}
/**
 * What is shown (exactly one of chain, image), where and how.
 */
export interface MountSpec {
  /**
   * Name of the LayerChain to show.
   */
  chain?: string;
  /**
   * Name of an Image: shorthand for a chain of all its layers in the default format.
   */
  image?: string;
  /**
   * `ReadOnly`: a view. `ReadWrite`: an active snapshot with its own scratch.
   */
  access?: 'ReadOnly' | 'ReadWrite';
  /**
   * Mount point on this host: an absolute path, `C:\mnt\app` on Windows, `/mnt/app` on Linux.
   */
  path: string;
  /**
   * `Kernel`: a kernel mount. `Extracted`: files copied out. Default: Kernel where possible, else Extracted, and the plan says why; an explicit Kernel stalls where it is impossible.
   */
  view?: 'Kernel' | 'Extracted';
  scratch?: Scratch;
  isolation?: Isolation;
  /**
   * Root hash the chain must have, of its merged CIM or its only layer; for a chain with `integrity: Verified`. Anything else is not mounted.
   */
  expectedRootHash?: string;
  /**
   * Keeps the resource and what depends on it as they are. `true`, or who suspended it and why.
   */
  suspend?: boolean | Suspension;
  dependsOn?: DependsOn;
  retry?: Retry;
  /**
   * Longest time one attempt may take; no limit when omitted.
   */
  timeout?: string;
  /**
   * What to do when the host no longer matches what was applied: `Repair` it, or only `Report` it.
   */
  driftPolicy?: 'Repair' | 'Report';
  /**
   * What happens on the host when the resource is deleted: `Delete` removes what was made for it, `Orphan` leaves it.
   */
  deletionPolicy?: 'Delete' | 'Orphan';
  hosts?: HostSelector;
}
/**
 * The writable layer of a ReadWrite mount.
 */
export interface Scratch {
  /**
   * Largest size, e.g. `20Gi`.
   */
  size?: string | number;
  /**
   * Leaves the scratch without a file system, for the utility VM to format.
   */
  unformatted?: boolean;
  /**
   * Directory that holds the scratch. Default: beside the snapshot.
   */
  location?: string;
  /**
   * Name of a Mount whose scratch this one uses too.
   */
  shareWith?: string;
  /**
   * Also makes the disk that a utility VM boots the chain's system with, `vm\sandbox.vhdx` beside the scratch. WCIFS layers on Windows.
   */
  utilityVM?: boolean;
}
/**
 * Who sees the mount: exactly one of process, utilityVM. Default: process.
 */
export interface Isolation {
  process?: ProcessIsolation;
  utilityVM?: UtilityVM;
}
/**
 * The host and its processes.
 */
export interface ProcessIsolation {}
/**
 * A running utility VM, which the mount is attached to.
 */
export interface UtilityVM {
  /**
   * ID of the utility VM's compute system.
   */
  id: string;
}
/**
 * The agent's configuration, cimlet.yaml. Flags and CIMLET_* variables override it. Secrets are never written here, only the files that hold them.
 */
export interface AgentConfig {
  /**
   * Folder of state and layers. Default: /var/lib/cimlet, on Windows %ProgramData%\cimlet.
   */
  root?: string;
  /**
   * Which host does the work; `auto` takes windows on Windows and embedded elsewhere.
   */
  host?: 'auto' | 'windows' | 'embedded';
  /**
   * Where manifests come from.
   */
  sources?: Source[];
  registry?: RegistryConfig;
  gc?: GcConfig;
  /**
   * Labels of this host, which `spec.hosts.matchLabels` selects by.
   */
  labels?: {
    [k: string]: string;
  };
  /**
   * Who is told of what happens.
   */
  notifications?: Notification[];
  concurrency?: ConcurrencyConfig;
  intervals?: IntervalsConfig;
  listen?: ListenConfig;
  /**
   * The largest share of a source's resources, in percent, that goes unconfirmed when the manifests no longer declare them.
   */
  pruneLimit?: number;
  /**
   * The least severity logged.
   */
  logLevel?: 'debug' | 'info' | 'warn' | 'error';
}
/**
 * One place with manifests: exactly one of folder, git.
 */
export interface Source {
  /**
   * Name of the source; what it declares is owned by it.
   */
  name: string;
  folder?: FolderSource;
  git?: GitSource;
  /**
   * How often it is looked at, even when nothing seems to have changed.
   */
  interval?: string;
  /**
   * Whether what is removed from the manifests is removed from the host.
   */
  prune?: boolean;
  /**
   * Keeps everything that the source declares as it is. `true`, or who suspended it and why.
   */
  suspend?: boolean | Suspension1;
}
/**
 * A folder on this machine, watched.
 */
export interface FolderSource {
  /**
   * The folder.
   */
  path: string;
  /**
   * Globs of the files that are read, relative to the folder. Default: all of them.
   */
  include?: string[];
  /**
   * Globs of files that are left out.
   */
  ignore?: string[];
  /**
   * How changes are noticed: told by the system, or looked for, which network shares need.
   */
  watch?: 'Events' | 'Polling';
  /**
   * How often changes are looked for with `watch: Polling`.
   */
  pollInterval?: string;
}
/**
 * A git repository.
 */
export interface GitSource {
  /**
   * Address of the repository: https, ssh or a path.
   */
  url: string;
  ref?: GitRef;
  /**
   * Folder inside the repository that manifests are read from. Default: its root.
   */
  path?: string;
  /**
   * Globs of the files that are fetched, relative to the root of the repository. Default: all below `path`.
   */
  include?: string[];
  /**
   * Globs of files that are left out, relative to the root of the repository.
   */
  ignore?: string[];
  verification?: GitVerification;
  /**
   * How long one look at the repository may take, with all that is fetched.
   */
  timeout?: string;
  /**
   * Certificates (PEM) of the authorities trusted for this server, in place of the system's.
   */
  caFile?: string;
  webhook?: GitWebhook;
  credentials?: GitCredentials;
}
/**
 * What to follow: exactly one of branch, tag, semver, commit. Default: the repository's default branch.
 */
export interface GitRef {
  /**
   * Head of this branch.
   */
  branch?: string;
  /**
   * This tag.
   */
  tag?: string;
  /**
   * Highest tag in this range of versions.
   */
  semver?: string;
  /**
   * This commit.
   */
  commit?: string;
}
/**
 * Signatures that a revision must carry.
 */
export interface GitVerification {
  /**
   * What must be signed: the commit (HEAD), the tag, or both.
   */
  mode?: 'HEAD' | 'Tag' | 'TagAndHEAD';
  /**
   * Files with the public keys that are trusted (OpenPGP or SSH).
   *
   * @minItems 1
   *
   * Items: A path on this machine; a relative one is relative to the manifest's folder.
   */
  keys: string[];
}
/**
 * Who may tell of pushes.
 */
export interface GitWebhook {
  /**
   * How the sender proves that it knows the secret.
   */
  provider: 'GitHub' | 'GitLab' | 'Gitea' | 'Generic';
  /**
   * File that holds the secret.
   */
  secretFile: string;
}
/**
 * How to sign in: exactly one of tokenFile, tokenVariable, passwordFile, sshKeyFile.
 */
export interface GitCredentials {
  /**
   * User name, with a token or password. Default: `git`.
   */
  username?: string;
  /**
   * File that holds a token.
   */
  tokenFile?: string;
  /**
   * Environment variable of the agent that holds a token.
   */
  tokenVariable?: string;
  /**
   * File that holds the password.
   */
  passwordFile?: string;
  /**
   * Private SSH key.
   */
  sshKeyFile?: string;
  /**
   * SSH host keys that are trusted; required with sshKeyFile.
   */
  knownHostsFile?: string;
}
export interface Suspension1 {
  /**
   * Why it is suspended; shown in plans and status.
   */
  reason: string;
  /**
   * Who suspended it.
   */
  by?: string;
}
/**
 * How registries are reached.
 */
export interface RegistryConfig {
  /**
   * Folder with one folder per registry that holds a hosts.toml (mirrors, certificates), as containerd has it.
   */
  configPath?: string;
  /**
   * Who signs in where. Default: the Docker configuration of the agent's user.
   */
  credentials?: RegistryCredentials[];
  limits?: RegistryLimits;
}
/**
 * Credentials of one registry: exactly one of dockerConfig, helper, passwordFile, passwordEnv.
 */
export interface RegistryCredentials {
  /**
   * Host of the registry, e.g. `registry.example.com:5000`; every one when omitted.
   */
  registry?: string;
  /**
   * A Docker config.json.
   */
  dockerConfig?: string;
  /**
   * Docker credential helper, the part of its name after `docker-credential-`.
   */
  helper?: string;
  /**
   * User name, with passwordFile or passwordEnv.
   */
  username?: string;
  /**
   * File that holds the password or token.
   */
  passwordFile?: string;
  /**
   * Environment variable that holds the password or token.
   */
  passwordEnv?: string;
}
/**
 * Bounds of what is fetched.
 */
export interface RegistryLimits {
  /**
   * Layers fetched at the same time from one registry.
   */
  connections?: number;
  /**
   * Most bytes fetched in a second, all registries together; no bound when omitted.
   */
  bytesPerSecond?: string | number;
  /**
   * Largest compressed layer; no bound when omitted.
   */
  layerSize?: string | number;
  /**
   * Attempts after the first one for a request that failed.
   */
  retries?: number;
}
/**
 * When unused layers and blobs are removed.
 */
export interface GcConfig {
  /**
   * Whether they are removed at all.
   */
  enabled?: boolean;
  /**
   * How often it is looked for them.
   */
  interval?: string;
  /**
   * How long something must have been unused.
   */
  minAge?: string;
  /**
   * Unused images stay while all take no more than this.
   */
  keepStorage?: string | number;
  /**
   * Collects at once above this use of the disk.
   */
  highThresholdPercent?: number;
  /**
   * Collects down to this use of the disk.
   */
  lowThresholdPercent?: number;
}
/**
 * One receiver: exactly one of url, urlFile, urlVariable.
 */
export interface Notification {
  /**
   * Name of the receiver; under it is kept what it was told.
   */
  name: string;
  /**
   * How the message is written.
   */
  type?: 'webhook' | 'slack' | 'teams';
  /**
   * Where it is sent to.
   */
  url?: string;
  /**
   * File that holds the address, when it is a secret.
   */
  urlFile?: string;
  /**
   * Environment variable of the agent that holds the address.
   */
  urlVariable?: string;
  /**
   * File that holds the key that messages are signed with (HMAC-SHA-256), with type webhook.
   */
  secretFile?: string;
  /**
   * Environment variable of the agent that holds that key.
   */
  secretVariable?: string;
  /**
   * The least severity told.
   */
  severity?: 'info' | 'error';
  /**
   * Only events of these. Default: of all, except what went well with single layers.
   *
   * @minItems 1
   */
  kinds?: ('Image' | 'LayerChain' | 'Mount' | 'Snapshot' | 'Merge' | 'Source' | 'Host')[];
  /**
   * Only events of what is named so, `*` for any text. Default: of all.
   *
   * @minItems 1
   */
  names?: string[];
  /**
   * Only events with these reasons, such as `Repaired`. Default: with any.
   *
   * @minItems 1
   */
  reasons?: string[];
}
/**
 * How much is done at the same time.
 */
export interface ConcurrencyConfig {
  /**
   * Layers being fetched, from all registries together.
   */
  fetching?: number;
  /**
   * Layers being unpacked.
   */
  unpacking?: number;
  /**
   * Chains being merged.
   */
  merging?: number;
  /**
   * Mounts being made or taken away.
   */
  mounting?: number;
}
/**
 * How often the agent looks.
 */
export interface IntervalsConfig {
  /**
   * Observes the host and repairs drift.
   */
  resync?: string;
}
/**
 * Serves API, metrics, health and webhooks over TCP too. Exactly one of tokenFile, tokenVariable.
 */
export interface ListenConfig {
  /**
   * Host and port, or a port of 127.0.0.1. Other hosts are listened on when they are written here only.
   */
  address: string;
  /**
   * File that holds the token that is asked for.
   */
  tokenFile?: string;
  /**
   * Environment variable of the agent that holds the token.
   */
  tokenVariable?: string;
}
