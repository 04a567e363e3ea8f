import { defineConfig } from "vite";

// The binary embeds the files that this writes (crates/console). The names have no hashes, there is one file of each
// kind, and links are relative: the console works under any path prefix, and its files change only with its sources.
export default defineConfig({
  base: "./",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "../crates/console/files",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: false,
    cssCodeSplit: false,
    target: "es2022",
    // Lists the libraries in the bundle with their licences, whose texts must be distributed with it.
    license: { fileName: "licences.md" },
    rollupOptions: {
      output: {
        entryFileNames: "console.js",
        assetFileNames: "console[extname]",
        codeSplitting: false,
      },
    },
  },
});
