import { defineConfig } from "vite";

// The binary embeds what this writes (crates/console). Names without hashes, one file of each kind, and
// relative links: the console works under any path prefix, and its files change only with its sources.
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
    // What is in the bundle, and under which licences: they ask that their text goes with it.
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
