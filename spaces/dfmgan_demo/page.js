// What the page does without asking the server: the chosen part large, ways to see it, ticks, the walk, the address.
// Listeners are on the document, because gradio replaces what is inside its elements.
window.dfmgan = (() => {
  const $ = (selector, from = document) => from.querySelector(selector);
  const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const items = () => $$("#gallery .triplet");
  const chosen = () => Math.max(0, items().findIndex((item) => $(".pick", item).getAttribute("aria-pressed") === "true"));

  // A region of its own that stays: what is put into a new one is not read out.
  const announcer = Object.assign(document.createElement("div"), {id: "announcer", className: "only-read"});
  announcer.setAttribute("role", "status");
  document.addEventListener("DOMContentLoaded", () => document.body.append(announcer));
  if (document.body) document.body.append(announcer);
  const say = (text) => { if (announcer.textContent !== text) announcer.textContent = text; };

  function choose(i, {focus = false, scroll = true} = {}) {
    const all = items(), item = all[i];
    if (!item) return;
    all.forEach((other, j) => {
      $(".pick", other).setAttribute("aria-pressed", String(j === i));
      $$(".pick, .tick input", other).forEach((part) => (part.tabIndex = j === i ? 0 : -1));
    });
    const large = $("#large"), stage = $(".stage", large);
    if (!stage) return;
    const source = (kind) => $(`img[data-kind=${kind}]`, item);
    $(".after", stage).src = source("image").src;
    $(".before", stage).src = source("defect_free").src;
    $("svg", stage).setAttribute("viewBox", `0 0 ${item.dataset.width} ${item.dataset.height}`);
    $$("path", stage).forEach((path) => path.setAttribute("d", item.dataset.outline));
    stage.style.setProperty("--width", item.dataset.width + "px");
    Object.assign(stage.dataset, {slope: item.dataset.slope, intercept: item.dataset.intercept});
    const empty = item.dataset.empty === "1";
    $(".tag.right", stage).textContent = empty ? "no defect" : "with defect";
    $(".after", stage).alt = empty ? "The part, which has no defect" : "The part with its defect";
    moveDivider($(".divider-position", stage), item.dataset.cut);
    $(".area", large).innerHTML = item.dataset.area;
    $(".origin", large).textContent = item.dataset.origin;
    $$(".files a", large).forEach((link) => {
      link.href = source(link.dataset.kind).src;
      link.download = source(link.dataset.kind).dataset.file;
    });
    restretch($(".viewer"));
    const list = $("#gallery .triplets");
    if (scroll && list.scrollHeight > list.clientHeight) {
      const [inner, outer] = [item.getBoundingClientRect(), list.getBoundingClientRect()];
      list.scrollTop += Math.max(0, inner.bottom - outer.bottom + 8) + Math.min(0, inner.top - outer.top - 8);
    }
    if (focus) $(".pick", item).focus({preventScroll: true});
  }

  const turn = (by, options) => choose((chosen() + by + items().length) % items().length, options);

  function moveDivider(input, value) {
    input.value = value;
    input.setAttribute("aria-valuetext", `${value} % shows the ${input.dataset.what} without its defect`);
    input.closest(".stage").style.setProperty("--cut", value + "%");
  }

  // One SVG filter for each viewer, because every picture has levels of its own.
  function restretch(viewer) {
    const stage = viewer && $$(".stage", viewer).find((one) => one.dataset.slope);
    if (!stage) return;
    if (!$("#stretch-" + viewer.id)) {
      const functions = ["R", "G", "B"].map((c) => `<feFunc${c} type="linear"/>`).join("");
      document.body.insertAdjacentHTML("beforeend", `<svg class="only-read" aria-hidden="true"><filter
        id="stretch-${viewer.id}" color-interpolation-filters="sRGB"><feComponentTransfer>${functions}
        </feComponentTransfer></filter></svg>`);
    }
    $$(`#stretch-${viewer.id} feComponentTransfer > *`).forEach((level) => {
      level.setAttribute("slope", stage.dataset.slope);
      level.setAttribute("intercept", stage.dataset.intercept);
    });
    viewer.style.setProperty("--stretch", `url(#stretch-${viewer.id})`);
  }

  function useTool(button) {
    const viewer = button.closest(".viewer"), name = button.dataset.tool;
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    viewer.dataset[name] = on ? "on" : "";
    if (name === "stretch") restretch(viewer);
  }

  // Steps of whole screen pixels for each pixel of the picture, from what fits on; the middle stays in the middle, and
  // the first step goes to the defect.
  const LARGEST_ZOOM = 32;
  function zoom(viewer, step) {
    const stage = $$(".stage", viewer).find((one) => one.offsetParent && $(".sheet", one));
    if (!stage) return;
    const scope = $(".scope", stage), now = Number(viewer.dataset.zoom) || 0;
    const fits = stage.clientWidth / parseFloat(stage.style.getPropertyValue("--width"));
    const least = 2 ** Math.ceil(Math.log2(Math.max(fits * 1.05, 1)));
    let to = step > 0 ? (now ? now * 2 : least) : now / 2;
    if (to < least) to = 0;
    if (to > Math.max(LARGEST_ZOOM, least)) return;
    const svg = $("svg", stage), defect = $("path", svg).getBBox(), whole = svg.viewBox.baseVal;
    if (!now) stage.aim = defect.width ? [(defect.x + defect.width / 2) / whole.width, (defect.y + defect.height / 2) / whole.height] : [0.5, 0.5];
    // What is near an edge cannot stand in the middle; it is still aimed at until somebody moves the picture.
    else if (Math.hypot(scope.scrollLeft - stage.at[0], scope.scrollTop - stage.at[1]) > 2) stage.aim = [
      (scope.scrollLeft + scope.clientWidth / 2) / scope.scrollWidth, (scope.scrollTop + scope.clientHeight / 2) / scope.scrollHeight];
    const [x, y] = stage.aim;
    if (to) { viewer.dataset.zoom = to; scope.tabIndex = 0; } else { delete viewer.dataset.zoom; scope.removeAttribute("tabindex"); }
    viewer.style.setProperty("--zoom", to || 1);
    for (const tag of $$(".tag.scale", viewer)) tag.textContent = to ? `${to} ×` : "";
    scope.scrollTo({left: x * scope.scrollWidth - scope.clientWidth / 2, top: y * scope.scrollHeight - scope.clientHeight / 2});
    stage.at = [scope.scrollLeft, scope.scrollTop];
    say(to ? `${to} screen pixels for each pixel; scroll to move` : "All of the picture");
  }

  function isVisible(element) {
    const box = element.getBoundingClientRect();
    return box.top >= 0 && box.top < innerHeight - 120;
  }

  function show(selector) {
    const element = $(selector);
    if (element && !isVisible(element)) element.scrollIntoView({behavior: calm.matches ? "auto" : "smooth"});
  }

  const acts = {
    previous: () => turn(-1),
    next: () => turn(1),
    up: () => { show("#results"); $$("#gallery .pick")[chosen()]?.focus({preventScroll: true}); },
    full: (button) => document.fullscreenElement
      ? document.exitFullscreen() : button.closest(".compare, .viewer").requestFullscreen?.(),
    closer: (button) => zoom(button.closest(".viewer"), 1),
    farther: (button) => zoom(button.closest(".viewer"), -1),
    play: (button) => play(button.closest(".player"), button.textContent !== "Pause"),
    copy: (button) => navigator.clipboard?.writeText(button.nextElementSibling.textContent).then(() => {
      button.textContent = "Copied"; say("Copied");
    }),
  };

  // A walk: there and back, until it is stopped; it stands still for who wants no motion.
  function step(player, i) {
    $$(".frame", player).forEach((frame, j) => frame.classList.toggle("now", j === i));
    $(".step", player).value = i;
  }
  function play(player, on) {
    clearInterval(player.timer);
    $("[data-act=play]", player).textContent = on ? "Pause" : "Play";
    if (!on) return;
    const last = $$(".frame", player).length - 1;
    let way = 1;
    player.timer = setInterval(() => {
      if (!player.isConnected) return clearInterval(player.timer);
      const now = Number($(".step", player).value);
      if (now + way > last || now + way < 0) way = -way;
      step(player, now + way);
    }, Number(player.dataset.milliseconds));
  }

  function offerWalk() {
    const all = items(), now = chosen();
    const other = all.findIndex((item, i) => i !== now && item.dataset.empty === "0");
    for (const [name, words, picked] of [["from", "From", now], ["to", "To", other]]) {
      const place = $(`#walk-${name}`);
      if (!place) continue;
      place.innerHTML = `<fieldset><legend>${words}</legend><div class="choices">` + all.map((item, i) => `
        <label><input type="radio" name="walk-${name}" value="${i}" ${i === picked ? "checked" : ""}>
        <img src="${$("img[data-kind=image]", item).src}" alt="Number ${i + 1}"></label>`).join("") + "</div></fieldset>";
    }
  }
  const end = (name) => Number($(`#walk-${name} input:checked`)?.value ?? 0);

  const ticked = () => items().flatMap((item, i) => ($(".tick input", item).checked ? [i] : []));
  function countTicks() {
    const button = $("#take-shown"), count = ticked().length || items().length;
    const which = ticked().length ? "ticked" : "shown";
    const words = `Take home the ${count} ${which}`;
    if (button && count && button.textContent !== words) button.textContent = words;
  }

  // The address draws the same again, here or for whoever gets it.
  function remember(recipe, onlyDefects) {
    if (!recipe) return;
    const query = new URLSearchParams({model: recipe.model, parts: recipe.part_seeds.join(".")});
    if (recipe.part_seeds.join() !== recipe.defect_seeds.join()) query.set("defects", recipe.defect_seeds.join("."));
    query.set("variety", recipe.truncation_psi);
    query.set("size", -recipe.mask_threshold || 0);
    query.set("strength", recipe.strength);
    if (!onlyDefects) query.set("only", "0");
    const kept = new URLSearchParams(location.search);
    for (const [name, value] of kept) if (name.startsWith("__")) query.set(name, value);
    history.replaceState(null, "", "?" + query);
  }
  const address = () => Object.fromEntries(new URLSearchParams(location.search));

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("button");
    if (button?.dataset.tool) useTool(button);
    else if (button?.dataset.act) acts[button.dataset.act](button);
    else if (button?.matches(".pick")) {
      choose(items().indexOf(button.closest(".triplet")), {scroll: false});
      if (matchMedia("(max-width: 767px)").matches) show("#large");
    }
  });
  document.addEventListener("input", (event) => {
    if (event.target.matches(".divider-position")) moveDivider(event.target, event.target.value);
    if (event.target.matches(".step")) { const p = event.target.closest(".player"); play(p, false); step(p, Number(event.target.value)); }
    if (event.target.closest(".tick")) countTicks();
  });
  document.addEventListener("pointermove", (event) => {
    const scope = event.pointerType === "mouse" && event.buttons === 1 && event.target.closest?.(".viewer[data-zoom] .scope");
    if (scope && !event.target.matches("input")) { scope.scrollBy(-event.movementX, -event.movementY); event.preventDefault(); }
  });
  document.addEventListener("dragstart", (event) => { if (event.target.closest?.(".scope")) event.preventDefault(); });
  document.addEventListener("keydown", (event) => {
    const by = {ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1}[event.key];
    const inGallery = event.target.matches?.(".pick"), inLarge = event.target.closest?.("#large") && !event.target.matches("input, .scope");
    if (!(inGallery || inLarge) || event.ctrlKey || event.altKey || event.metaKey) return;
    if (by) turn(by, {focus: inGallery});
    else if (inGallery && event.key === "Home") choose(0, {focus: true});
    else if (inGallery && event.key === "End") choose(items().length - 1, {focus: true});
    else return;
    event.preventDefault();
  });

  // What gradio has put onto the page.
  let seen, said = "", playing, drawn = {};
  const look = () => {
    const list = $("#gallery .triplets");
    if (list && $("#large .stage") && list.dataset.key !== seen) {
      seen = list.dataset.key;  // gradio changes the elements that are there, so they are no sign
      if (list.dataset.seed) drawn = {...list.dataset};
      choose(chosen());
      offerWalk();
    }
    // What is folded away comes when it is opened.
    if (seen && $("#walk-from") && !$("#walk-from").firstChild) offerWalk();
    countTicks();
    const walk = $("#walk .player");
    if (walk && walk.dataset.key !== playing) { playing = walk.dataset.key; step(walk, 0); play(walk, !calm.matches); }
    for (const image of $$("footer img[alt]")) image.alt = "";  // beside the same words
    for (const viewer of $$(".viewer")) if (viewer.dataset.stretch) restretch(viewer);
    const words = [...new Set($$(".says").filter((one) => one.offsetParent).map((one) => one.textContent.trim()))].join(" ").trim();
    if (words !== said) say((said = words));
    // Only a place in a queue is news; that time passes is not.
    for (const text of $$(".meta-text, .meta-text-center")) text.classList.toggle("quiet", !/queue/.test(text.textContent));
  };
  new MutationObserver(look).observe(document, {subtree: true, childList: true, characterData: true});

  return {
    chosen, ticked, end, address, remember, show,
    roll: (highest) => Math.floor(Math.random() * highest),
    // New ones: after those that stand there, unless another seed was written into the box.
    next: (seed) => (String(seed) === drawn.seed ? Number(drawn.next) : seed),
  };
})();
