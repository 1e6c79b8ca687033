/* Start a deck: slides on a screen, cards on a phone. The theme is the one that the site's
   reader chose, or the system's; T turns it. With `?print-pdf` each slide is a page, and
   `?receiver` is a slide in the speaker's window: both are slides at any size. */
(function () {
  "use strict";
  var root = document.documentElement, asked = null;
  var dark = matchMedia("(prefers-color-scheme: dark)");
  var always = /print-pdf|receiver/i.test(location.search);
  var sheets = [].slice.call(document.querySelectorAll("link[media]"));
  var small = matchMedia(sheets[0].media.replace("print, ", ""));
  try { asked = localStorage.getItem("mode"); } catch (error) { asked = null; }

  function paint(theme) { root.dataset.theme = theme; }
  function turn() { paint(root.dataset.theme === "dark" ? "light" : "dark"); }
  function follow() { paint(dark.matches ? "dark" : "light"); }
  if (asked === "dark" || asked === "light") paint(asked);
  else { follow(); dark.addEventListener("change", follow); }

  function start() {
    Reveal.initialize({
      width: 1280, height: 720, margin: 0, center: false, hash: true, slideNumber: "c/t",
      scrollActivationWidth: null, plugins: [RevealNotes], transitionSpeed: "fast",
      keyboardCondition: isOurs,
      transition: matchMedia("(prefers-reduced-motion: reduce)").matches ? "none" : "fade"
    }).then(function () {
      Reveal.addKeyBinding({ keyCode: 84, key: "T", description: "Light or dark" }, turn);
    });
    document.addEventListener("keydown", turnFromControl);
  }

  // Arrows belong to a menu that has the focus, and the space bar to a button.
  function isOurs(event) {
    var name = event.target && event.target.tagName;
    return !(name === "SELECT" || (name === "BUTTON" && event.key === " "));
  }

  // A clicker turns the page also where a slider or a menu has the focus.
  function turnFromControl(event) {
    var by = { PageDown: "next", PageUp: "prev" }[event.key];
    if (!by || !/^(INPUT|SELECT)$/.test(event.target.tagName)) return;
    event.preventDefault();
    Reveal[by]();
  }

  function cards() {
    var all = [].slice.call(document.querySelectorAll(".slides > section"));
    var notes = document.getElementById("notes"), place = /^#\/(\d+)/.exec(location.hash);
    function toggle() {
      notes.setAttribute("aria-pressed", document.body.classList.toggle("with-notes"));
    }
    function step(by) {
      var here = all.filter(function (one) { return one.getBoundingClientRect().top < 20; }).length - 1;
      (all[Math.max(0, here + by)] || all[all.length - 1]).scrollIntoView();
    }
    notes.addEventListener("click", toggle);
    document.getElementById("theme").addEventListener("click", turn);
    document.addEventListener("keydown", function (event) {
      if (/^(INPUT|SELECT)$/.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
      var what = { t: turn, s: toggle, ArrowRight: step.bind(null, 1), ArrowLeft: step.bind(null, -1) }[event.key];
      if (what) { what(); event.preventDefault(); }
    });
    if (place && all[place[1]]) all[place[1]].scrollIntoView();
  }

  if (always) sheets.forEach(function (sheet) { sheet.media = /cards/.test(sheet.href) ? "not all" : "all"; });
  if (small.matches && !always) cards(); else start();
  small.addEventListener("change", function () { if (!always) location.reload(); });
})();
