/** Runs before every test file. */
import { setLogLevel } from "#core/log";

// A passing run prints results only; a test that reads log lines sets its own level.
setLogLevel("error");
