#!/usr/bin/env node
// biome-ignore-all lint: old JavaScript on purpose: any Node must be able to parse this file, if only to say that it is too old
'use strict';

var fs = require('fs');
var path = require('path');

var OLDEST = [22, 22];
var running = process.versions.node.split('.').map(Number);

if (running[0] < OLDEST[0] || (running[0] === OLDEST[0] && running[1] < OLDEST[1])) {
  var message = 'cimlet needs Node.js ' + OLDEST.join('.') + ' or newer; this is ' + process.versions.node;
  process.stderr.write('error: ' + message + '\n');
  process.exitCode = 1;
} else {
  start();
}

function start() {
  silenceExpectedWarnings();
  // Else V8 lets up to 128 MiB of garbage gather, most of it pieces of blobs that went by. No command takes longer with this.
  require('v8').setFlagsFromString('--semi-space-growth-factor=1');
  var emitted = path.join(__dirname, '..', 'dist', 'main.js');
  // A checkout has no dist: the sources run as they are, by type stripping.
  var entry = fs.existsSync(emitted) ? emitted : path.join(__dirname, '..', 'src', 'main.ts');
  // In a string for the sake of parsers that don't know the import() call.
  var load = new Function('url', 'return import(url)');
  load(require('url').pathToFileURL(entry).href).catch(function (error) {
    process.stderr.write('error: cimlet cannot start: ' + ((error && error.stack) || error) + '\n');
    process.exitCode = 1;
  });
}

// node:sqlite and type stripping announce themselves as experimental: known, and nothing a user can act on.
function silenceExpectedWarnings() {
  var emit = process.emitWarning;
  process.emitWarning = function (warning) {
    var text = String((warning && warning.message) || warning);
    if (/^(SQLite|Type Stripping) is an experimental feature/.test(text)) return;
    emit.apply(process, arguments);
  };
}
