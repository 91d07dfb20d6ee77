// Which keys stand where. A key is a character or one of the names below.

export const LETTER_ROWS = ["qwertyuiop", "asdfghjkl", "zxcvbnm"];
const BOTTOM = [",", "emoji", "space", ".", "enter"];

export const LAYOUTS = {
  letters: [
    [...LETTER_ROWS[0]],
    [...LETTER_ROWS[1]],
    ["shift", ...LETTER_ROWS[2], "back"],
    ["symbols", ...BOTTOM],
  ],
  symbols: [[..."1234567890"], [..."@#£_&-+()/"], ["more", ..."*\"':;!?", "back"], ["letters", ...BOTTOM]],
  more: [[..."~`|•√π÷×§¶"], [..."€$¥¢^°={}\\"], ["symbols", ..."%©®™✓[]", "back"], ["letters", ...BOTTOM]],
  emoji: [["letters", "space", "back", "enter"]], // below the emoji
};

export const NAMES = {
  shift: "Shift",
  back: "Backspace",
  symbols: "Numbers and marks",
  more: "More marks",
  letters: "Letters",
  emoji: "Emoji",
  space: "Space",
  enter: "Send",
  ",": "Comma",
  ".": "Full stop",
  "'": "Apostrophe",
  '"': "Quotation mark",
  "-": "Hyphen",
  _: "Underscore",
};

export const EMOJI = [
  ["Faces", "😀😄😂🤣😊🙂😉😍🥰😘😜🤪🤔🤨😐🙄😏😴😢😭😤😡🤯😱🥳😎🤓🥺😬🤗🤭🙃"],
  ["Hands and hearts", "👍👎👌✌🤞👏🙌🙏💪👋🤝🤷🤦❤🧡💛💚💙💜🖤💔💕💯✨🔥🎉"],
  ["Animals and nature", "🐶🐱🐭🐰🦊🐻🐼🐨🐯🦁🐸🐵🐧🐦🦉🐝🦋🐢🌸🌻🌳🍀🌈⭐🌙☀⛅❄"],
  ["Food", "🍎🍌🍓🍇🍉🥑🥕🌽🍞🧀🍳🍔🍕🌮🍜🍣🍰🍪🍫☕🍵🍺🍷"],
  ["Things and places", "⚽🏀🎮🎸🎬📷💻📱💡📚✏🎁🚗🚲🚆✈🏠🏖⛰🗺⏰📅🔑💰"],
].map(([name, all]) => [name, Array.from(all, coloured)]);

/** Some of them are drawn as text unless a variation selector asks for the picture. */
function coloured(emoji) {
  return /\p{Emoji_Presentation}/u.test(emoji) ? emoji : `${emoji}\uFE0F`;
}
