/** What the agent logs to: fields first, then a constant message, as pino has it. */

type Write = (fields: Record<string, unknown>, message: string) => void;

export interface AgentLog {
  debug: Write;
  info: Write;
  warn: Write;
  error: Write;
}
