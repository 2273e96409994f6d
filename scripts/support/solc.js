// The Solidity compiler from npm (WebAssembly) behind the two command lines that py-solc-x and Slither use:
// `--version`, and `--standard-json` with the job on standard input.
// Imports are read from files relative to the working folder, as the native compiler does; remappings were applied
// by the compiler before it asks.
"use strict";
const fs = require("fs");
const path = require("path");

const words = process.argv.slice(2);
const compiler = () => require(path.join(process.env.ASSAY_NODE_MODULES, "solc"));

function readImport(name) {
  const roots = [process.cwd(), path.dirname(process.env.ASSAY_NODE_MODULES)];
  for (const file of path.isAbsolute(name) ? [name] : roots.map((root) => path.join(root, name))) {
    try {
      return { contents: fs.readFileSync(file, "utf8") };
    } catch (error) {
      if (error.code !== "ENOENT" && error.code !== "ENOTDIR") return { error: String(error) };
    }
  }
  return { error: `File not found: ${name}` };
}

if (words.includes("--version")) {
  // Written once by the set-up: loading the compiler only to learn its name would cost a second a call.
  const version = process.env.ASSAY_SOLC_VERSION || compiler().version();
  process.stdout.write(`solc, the solidity compiler commandline interface\nVersion: ${version}\n`);
} else if (words.includes("--standard-json")) {
  const result = compiler().compile(fs.readFileSync(0, "utf8"), { import: readImport });
  fs.writeSync(1, result);
} else {
  process.stderr.write(`solc from npm: only --version and --standard-json are supported, got: ${words.join(" ")}\n`);
  process.exit(1);
}
