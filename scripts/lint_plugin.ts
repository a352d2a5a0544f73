/** The project's own lint rules: where libraries are opened, how errors speak, what a module looks like. */

const OPENERS = /\/ffi\//;

/** `throw new Error("...")` messages start with "Cannot" and hold no contractions; a test helper may speak as it likes. */
const plugin: Deno.lint.Plugin = {
  name: "espalier",
  rules: {
    "dlopen-in-ffi": {
      create(context) {
        return {
          'CallExpression[callee.object.name="Deno"][callee.property.name="dlopen"]'(node: Deno.lint.Node) {
            if (!OPENERS.test(context.filename)) {
              context.report({ node, message: "Deno.dlopen is called here, it must be called in ffi/ alone" });
            }
          },
        };
      },
    },
    "error-grammar": {
      create(context) {
        const inLibrary = /\/(lib|ffi|recipes)\//.test(context.filename) && !/\/(tests|scripts|bench)\//.test(context.filename);
        return {
          NewExpression(node) {
            if (
              !inLibrary || node.callee.type !== "Identifier" ||
              !/^(Range|Type|Reference)?Error$|^(User|Config)Error$/.test(node.callee.name)
            ) return;
            const first = node.arguments[0];
            const text = first?.type === "Literal"
              ? String(first.value)
              : first?.type === "TemplateLiteral"
              ? first.quasis[0].cooked
              : first?.type === "BinaryExpression"
              ? context.sourceCode.getText(first).replace(/^[`"']/, "")
              : "Cannot ";
            if (!/^(Cannot |\$\{|$)/.test(text) && !/^[a-z]/.test(text)) {
              context.report({ node, message: 'an error says "Cannot <do>: <what> is <got>, it must be <want>"' });
            }
          },
        };
      },
    },
    "no-default-export": {
      create(context) {
        return {
          ExportDefaultDeclaration(node) {
            if (!/scripts\/lint_plugin/.test(context.filename)) context.report({ node, message: "a module exports names, not a default" });
          },
        };
      },
    },
    "snake-case-file": {
      create(context) {
        return {
          Program(node) {
            const name = context.filename.split("/").at(-1)!;
            if (!/^[a-z0-9_]+(\.bundle)?\.(ts|js)$/.test(name)) {
              context.report({ node, message: `the file is called ${name}, it must be in snake_case` });
            }
          },
        };
      },
    },
  },
};

export default plugin;
