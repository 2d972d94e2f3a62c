// The order in which people count: img2 before img10, and a hyphen that no letter or digit precedes is a minus sign.
//
// The same rules as renderer/manifests/numbering.py, so that the page sorts a folder as `stillreel render` does. The
// tests compare the two.

const NUMBER = /((?:(?<![\p{L}\p{N}])-)?\p{Nd}+)/u;
const DIGIT = /\p{Nd}/u;

/** What a digit of any script stands for: each script has its ten in a row, from a place that ends in 0 or 6. */
function value(digit) {
  const code = digit.normalize("NFKC").codePointAt(0);
  const row = code & ~15;
  return code - (DIGIT.test(String.fromCodePoint(row)) ? row : row + 6);
}

function whole(text) {
  const digits = [...text].filter((letter) => letter !== "-").map(value);
  return BigInt(`${text.startsWith("-") ? "-" : ""}${digits.join("")}`);
}

/** Words and numbers in turns. */
const parts = (name) => name.toLowerCase().split(NUMBER).map((part, at) => (at % 2 ? whole(part) : part));

function compare(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Which of two names comes first, as for Array.sort. */
export function natural(one, other) {
  const [ones, others] = [parts(one), parts(other)];
  for (let at = 0; at < Math.min(ones.length, others.length); at += 1) {
    const found = compare(ones[at], others[at]);
    if (found) return found;
  }
  return compare(ones.length, others.length) || compare(one, other);
}

const byName = (one, other) => natural(one.name, other.name);
const byDate = (one, other) => one.date - other.date || byName(one, other);

/** The stills in another order: "name", "date" of the file, or "reverse". */
export function sorted(stills, order) {
  if (order === "reverse") return stills.toReversed();
  return stills.toSorted(order === "date" ? byDate : byName);
}
