/** The agent as a unit of systemd. */

import { CimletError } from '../errors.ts';
import type { ServiceDefinition } from './service-manager.ts';

/** On top of the agent's own deadline. */
const STOP_MARGIN_SECONDS = 15;

/**
 * What the embedded host needs of root: mounts and loop devices (SYS_ADMIN), files of any owner and mode, and that no
 * more. See capabilities(7).
 */
export const CAPABILITIES = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_DAC_READ_SEARCH',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_MKNOD',
  'CAP_SETFCAP',
  'CAP_SYS_ADMIN',
];

/** Unit text, as systemd.service(5) and systemd.exec(5) have it. */
export function systemdUnit({ command, stopTimeoutMs }: ServiceDefinition): string {
  const stopSeconds = Math.ceil(stopTimeoutMs / 1000) + STOP_MARGIN_SECONDS;
  return `[Unit]
Description=cimlet agent: keeps container layers and their mounts as declared
Wants=network-online.target
After=network-online.target local-fs.target
# It is started again however often it fails.
StartLimitIntervalSec=0

[Service]
Type=simple
ExecStart=${command.map(quoteArgument).join(' ')}
Restart=on-failure
RestartSec=5s
# The agent stops what it runs itself; only what is left then is killed.
KillMode=mixed
TimeoutStopSec=${stopSeconds}s

# No setting that gives it a mount namespace of its own (ProtectSystem, PrivateTmp, ...): nobody else would see its mounts.
CapabilityBoundingSet=${CAPABILITIES.join(' ')}
NoNewPrivileges=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
ProtectHostname=yes

[Install]
WantedBy=multi-user.target
`;
}

/** One argument of ExecStart=: no variables, no specifiers, no words split (systemd.service(5), "Command lines"). */
function quoteArgument(argument: string): string {
  if (/\p{Cc}/u.test(argument)) {
    throw new CimletError('failed-precondition', `a unit of systemd can't hold ${JSON.stringify(argument)}`, {
      hint: 'leave control characters out of it',
    });
  }
  const escaped = argument.replaceAll('%', '%%').replaceAll('$', '$$$$').replace(/["\\]/g, '\\$&');
  return /^[\w@+=:,./-]+$/.test(argument) ? escaped : `"${escaped}"`;
}
