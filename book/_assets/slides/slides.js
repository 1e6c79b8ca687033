/* Start a deck: the theme that the site's reader chose, or the system's; T turns it. */
(function () {
  "use strict";
  var root = document.documentElement, asked = null;
  var system = matchMedia("(prefers-color-scheme: dark)");
  try { asked = localStorage.getItem("mode"); } catch (error) { asked = null; }

  function paint(theme) { root.dataset.theme = theme; }
  function follow() { paint(system.matches ? "dark" : "light"); }
  if (asked === "dark" || asked === "light") paint(asked);
  else { follow(); system.addEventListener("change", follow); }

  Reveal.initialize({
    width: 1280, height: 720, margin: 0.02, center: false, hash: true, slideNumber: "c/t",
    transition: matchMedia("(prefers-reduced-motion: reduce)").matches ? "none" : "fade",
    transitionSpeed: "fast", plugins: [RevealNotes]
  }).then(function () {
    Reveal.addKeyBinding({ keyCode: 84, key: "T", description: "Light or dark" }, function () {
      paint(root.dataset.theme === "dark" ? "light" : "dark");
    });
  });
})();
