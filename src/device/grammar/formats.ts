/** Patterns of the formats that JSON Schema defines; each describes a part of what its format allows. */
const DAY =
  "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|02-(?:0[1-9]|1\\d|2[0-8]))";
const DATE = `\\d{4}-${DAY}`;
const ZONE = "(?:Z|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)";
const TIME = `(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,6})?${ZONE}`;
const N = "\\d{1,4}";
const CLOCK = `T(?:${N}H(?:${N}M(?:${N}S)?)?|${N}M(?:${N}S)?|${N}S)`;
const DURATION = `P(?:${N}W|(?:${N}Y(?:${N}M(?:${N}D)?)?|${N}M(?:${N}D)?|${N}D)(?:${CLOCK})?|${CLOCK})`;
const LABEL = "[a-zA-Z0-9]{1,24}(?:-[a-zA-Z0-9]{1,24})?";
const HOST = `${LABEL}(?:\\.${LABEL}){0,3}`;
const EMAIL = `[a-zA-Z0-9_+-]{1,32}(?:\\.[a-zA-Z0-9_+-]{1,16})?@${LABEL}(?:\\.${LABEL}){1,3}`;
const OCTET = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
const IPV4 = `${OCTET}\\.${OCTET}\\.${OCTET}\\.${OCTET}`;
const HEX4 = "[0-9a-fA-F]{1,4}";
const IPV6 = `(?:(?:${HEX4}:){7}${HEX4}|::(?:${HEX4}:){0,5}${HEX4}|(?:${HEX4}:){1,5}:${HEX4}|::)`;
const PCHAR = "[a-zA-Z0-9._~!$&'()*+,;=:@-]";
const PATH = `(?:/${PCHAR}*)*(?:\\?(?:${PCHAR}|/)*)?(?:#(?:${PCHAR}|/)*)?`;
const URI = `(?:https?|wss?|ftp)://${HOST}(?::[1-9]\\d{0,3})?${PATH}`;
const HEX = "[0-9a-fA-F]";

export const FORMATS: Readonly<Record<string, string>> = {
  date: DATE,
  time: TIME,
  "date-time": `${DATE}T${TIME}`,
  duration: DURATION,
  email: EMAIL,
  "idn-email": EMAIL,
  hostname: HOST,
  "idn-hostname": HOST,
  ipv4: IPV4,
  ipv6: IPV6,
  uri: URI,
  iri: URI,
  "uri-reference": `(?:${URI}|(?:/${PCHAR}+)+)`,
  "iri-reference": `(?:${URI}|(?:/${PCHAR}+)+)`,
  "uri-template": URI,
  uuid: `${HEX}{8}-${HEX}{4}-${HEX}{4}-${HEX}{4}-${HEX}{12}`,
  "json-pointer": "(?:/[a-zA-Z0-9_.-]+)*",
  "relative-json-pointer": "(?:0|[1-9]\\d?)(?:/[a-zA-Z0-9_.-]+)*",
  regex: "[a-zA-Z0-9_ -]*",
};
