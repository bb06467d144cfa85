/** What connections need of the MCP SDK; loaded with the first of them, since most servers have none. */
export { Client } from "@modelcontextprotocol/sdk/client/index.js";
export { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
export { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
export { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
export { ToolListChangedNotificationSchema } from "@modelcontextprotocol/sdk/types.js";
