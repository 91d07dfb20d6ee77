"""How personas build a message: frames with slots, and the small words that users choose for themselves.

A frame is a line of words and `{slots}`. The slots, filled by `writer`:

    do did doing   an act of the topic with its object     x       one of the topic's things, with its article
    thing things   one of the things, bare; several        feel    a mood
    q q0           a quality, perhaps intensified or bare  at      a place
    when then      a time to come, a time gone by          often   how regularly
    who            a third person, as a subject            whom    a person, as an object
    num hour       a small number, a time of day           name    somebody's name
    and each key of CHOICES, of which a user has one or two favourites

Every word was written for this file. `|` separates entries; one of CHOICES may end in a mark of the style it
belongs to: `^` formal or plain, `*` casual or texting, and after `@` one of the dialects us, uk, au, sc.
"""


def _words(text: str) -> list[str]:
    return text.split()


def _phrases(text: str) -> list[str]:
    return text.split("|")


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in text.split())


STATEMENTS = _phrases(
    "i {did} {then}|we {did} {then}|{who} {did} {then}|{am1} {doing} {at}|{am1} {doing} right now|"
    "{going1} {do} {when}|{who} wants to {do} {when}|we could {do} {when}|i {have} to {do} {hour}|"
    "i {need} to {do} {when}|i never {did} {at}|i always {do} {at}|i used to {do} {often}|"
    "we {do} {often}|i {want} to {do} with {whom}|{hedge} we should {do} {when}|"
    "{hedge} {who} {did} without {whom}|{who} is {q}|{who} was {q} {then}|{x} is {q}|"
    "{x} was {q} {then}|{x} looks {q} to me|{x} made me {feel}|{it_is} so {q0} {at}|"
    "it was {int} {q0} {at}|that sounds {q}|that was {int} {q0}|my {things} were all {q}|"
    "i feel {feel} about {x}|{am1} {feel} today|{who} seems {feel} {then}|{who} told me about {x}|"
    "{who} told {whom} that {x} is {q}|{who} said it would be {q}|i heard that {who} {did}|"
    "{do_not_know} where {x} is|{do_not_know} if i can {do} {when}|{do_not_know} why {who} {did}|"
    "i can not find {x}|i forgot {x} {at}|i left {x} {at}|i think about {doing} {often}|"
    "{doing} is harder than it looks|{doing} takes about {num} hours|{doing} with {whom} is {q}|"
    "there is {x} {at}|there were {num} people {at}|there is nothing better than {doing}|"
    "it took me {num} hours to {do}|it costs {num} {cash} to {do}|"
    "{favourite} part was when {who} {did}|{x} from {name} arrived {then}|{x} for {whom} is still {at}|"
    "{who} gave me {x}|{who} bought {x} for {num} {cash}|{who} works {at}|they closed the one {at}|"
    "nobody {did} except {whom}|everyone {at} was {feel}|{cannot} wait to {do} {when}|"
    "{cannot} believe {who} {did}|you would love {x}|you should {do} some time|"
    "you were right about {x}|no one likes {doing} {when}|i would rather {do} than {do}|"
    "{am1} {int} bad at {doing}|i got {num} of them {at}|i was {doing} when {who} called|"
    "i was about to {do}|i might {do} {when}|i just {did}|just {did} {at}|still {doing}|"
    "finally {did} after {num} weeks|another day of {doing}|sorry i was {doing}|sorry about {x}|"
    "more {q0} than last time|as {q0} as {x} {at}|not {q0} enough for {whom}|too {q0} for {doing}|"
    "{x} again|all i did was {do}|{who} keeps {doing}|{who} started {doing} {then}|"
    "{who} stopped {doing} because of {x}|{who} never lets me {do}|{who} helped me with {x}|"
    "{who} asked if you still {do}|maybe {who} can {do} for us|remember when we {did} {at}|"
    "at least {x} is {q}|apart from {x} it was {q}"
)

QUESTIONS = _phrases(
    "do {you} want to {do} {when}|did {you} {do} {then}|have {you} seen {x}|{are} {you} {doing} {when}|"
    "{are} {you} {at}|can {you} {do} {when}|can {who} {do} too|could {you} bring {x} {when}|"
    "where did {you} {do}|where is {x}|when {are} {you} {doing}|when does {who} {do}|how was {x}|"
    "how much was {x}|how do {you} {do}|how {q0} is it {at}|what happened to {x}|what time is {x}|"
    "what do {you} think of {x}|who is {doing} {when}|who {did} {then}|why did {who} {do}|"
    "why is {x} so {q0}|is {x} still {q}|is {who} {at}|is anyone {doing} {when}|was {who} {q}|"
    "should we {do} or {do}|shall i {do} for {you}|would {you} ever {do}|which {thing} do {you} like|"
    "any news about {x}|any plans {when}|want to {do} {when}|need help {doing}|ready to {do}|"
    "does {name} know about {x}|how long until {you} {do}"
)

REPLIES = _phrases(
    "{yes}|{no}|{thanks}|{laugh}|{yes} {name}|{yes} sounds {feel2}|{yes} that works|"
    "{yes} see {you} {when}|{no} not {when}|{no} i can not|{no} i {did} already|{thanks} {name}|"
    "{thanks} for {x}|{thanks} for {doing}|{laugh} that is {q}|{bye}|{bye} {name}|on my way {at}|"
    "be there {hour}|see {you} {at}|see {you} {when}|talk to {you} {when}|good luck with {x}|"
    "happy birthday {name}|good morning {name}|good night|no worries|of course|same here|me too|"
    "me neither|not really|not yet|maybe {when}|{wow}|{wow} so {q0}|i know right|i hope so|i guess|"
    "let me check|let me know|call me {when}|hope {you} feel better|how are {you}|how is {whom}|"
    "what about {you}|fine by me|{hour} is fine|make it {num}"
)

SEARCHES = _phrases(
    "{thing} near me|how to {do}|best {thing} {at}|cheap {thing}|{thing} reviews|{q0} {thing}|"
    "can you {do} {at}|is {thing} {q}|{thing} opening hours|{thing} under {num} {cash}|"
    "why is my {thing} {q}"
)

NOTES = _phrases(
    "{do} {when}|buy {thing} and {thing}|{thing} {thing} {thing}|ask {name} about {x}|{do} then {do}|"
    "call {name} {when}|{name} {hour} {at}|remember to {do}|{thing} for {whom}|{hour} {doing}|"
    "idea {do} with {whom}"
)

MAIL_CLOSINGS = _phrases(
    "kind regards|best wishes|many thanks|all the best|speak soon|yours|best|love|see you soon"
)

LINKS = _phrases("but|and|so|because|and then|though|while|or|if|until|even though|plus|also|since|except")

CHOICES = {
    "am1": "i'm|i am^|im*|am*",
    "going1": (
        "i'm going to|i am going to^|i will|i'll|im gonna*|gonna*|going to|i shall^|fixing to@us|"
        "i'm off to@uk"
    ),
    "have": "have|have got@uk|got*|need",
    "need": "need|really need|ought^",
    "want": "want|would like^|would love|wanna@us",
    "it_is": "it's|it is^|its*",
    "hedge": (
        "i think|i guess|i reckon@au|i suppose^|maybe|i feel like*|tbh*|honestly|to be fair@uk|i believe^|"
        "probably|imo*|clearly|apparently|i mean|well|i bet|i swear*|personally"
    ),
    "do_not_know": (
        "i don't know|i do not know^|idk*|no idea|dunno@uk|not sure|i wonder|who knows|dinnae ken@sc"
    ),
    "favourite": "my favourite|the best|the funniest|the worst|the only good|the weird",
    "cannot": "i can't|i cannot^|cant*|could not|can't",
    "you": "you|you|u*|ya@us|you all@us|you guys@us|you lot@uk|yous@sc",
    "are": "are|are|r*",
    "int": (
        "really|very^|so|super*|pretty@us|quite^|proper@uk|well@uk|totally@us|extremely^|bloody@uk|kinda*|"
        "absolutely|incredibly|rather^|heaps@au|hella@us|pure@sc|wee bit@sc|a bit|way too|ridiculously"
    ),
    "yes": (
        "yes|yeah|yep|yup*|sure|ok|okay|of course^|definitely|certainly^|aye@sc|yeah mate@au|sounds good|"
        "alright|cool|absolutely|totally@us|ye*|k*|right|perfect|deal|fine|for sure*|no problem|lovely@uk"
    ),
    "no": (
        "no|nope|nah*|sorry no|not really|i'm afraid not^|no way|naw@sc|nah mate@au|no chance@uk|never|"
        "unfortunately not^"
    ),
    "thanks": (
        "thanks|thank you^|thx*|cheers@uk|ta@uk|thanks so much|much appreciated^|ty*|thanks a lot|"
        "cheers mate@au"
    ),
    "laugh": "haha|lol*|hahaha|lmao*|hehe|that's funny^|ha|omg*|rofl*|brilliant@uk|hilarious",
    "bye": (
        "bye|see you|later|cya*|take care^|good night|ttyl*|cheerio@uk|love you|talk soon|xx*|goodbye^|"
        "hooroo@au"
    ),
    "wow": (
        "wow|omg*|oh no|oh dear@uk|damn|no way|oh my god|goodness^|crikey@au|holy crap*|jeez@us|oh well|"
        "nice|great"
    ),
    "cash": "pounds@uk|dollars@us|euros|quid@uk|bucks@us|dollars@au|pounds@sc",
    "hello": (
        "hi|hey|hello^|yo*|morning|hiya@uk|dear^|hey there|oi@uk|good morning^|sup*|hey man|g'day@au|"
        "hi there|evening|guys|mate@uk|dude@us|honey|babe*|bro*|mum|sis*|darling|love@uk|so|ok|well|oh|"
        "also|anyway|btw*"
    ),
    "feel2": (
        "good|great|lovely@uk|awesome@us|fine|perfect|nice|grand@sc|fun|fantastic|excellent^|amazing|sweet@au"
    ),
}

PHRASES = _phrases(
    "you know what i mean|it is what it is|at the end of the day|better late than never|"
    "fingers crossed|long story short|not gonna lie|what a day|story of my life|one step at a time|"
    "to be honest|for what it's worth|believe it or not|just saying|if you ask me|as far as i know|"
    "no pressure|thank god|god willing|here we go again|so far so good|happy days|back to square one|"
    "all good things|easy peasy|same old same old|first things first|never say never|"
    "good things take time|time will tell|can't complain|the usual|no rest for the wicked|touch wood|"
    "that's life|who cares|mark my words|i kid you not|sweet dreams|let's go|keep me posted|"
    "fair enough|my bad|stay safe|big hug|miss you|hurry up|no offence|just my luck|whatever works"
)

FEELINGS = _words(
    "happy sad tired angry nervous excited bored great awful fine lonely calm worried hopeful jealous "
    "confused relaxed annoyed proud guilty sleepy hungry lucky sick stressed relieved embarrassed "
    "thrilled fed_up ashamed curious upset okay terrible optimistic miserable shocked motivated"
)

QUALITIES = _words(
    "good bad nice great new old big small cheap lovely terrible strange cool weird fine perfect awful "
    "special different real normal huge little pretty silly stupid crazy useful serious cute fancy "
    "decent random whole"
)

WHEN = _phrases(
    "tonight|tomorrow|later|this weekend|next week|on monday|on tuesday|on wednesday|on thursday|"
    "on friday|on saturday|on sunday|in the morning|this afternoon|this evening|after work|after lunch|"
    "before dinner|soon|next month|in a bit|at some point|after school|in an hour|tomorrow night|"
    "at the weekend|first thing|over christmas|in summer|when i get home|if the weather holds|"
    "once it stops raining|in june|in october|before the holidays|as soon as possible|in the new year|"
    "when you have time|any day now|at lunch"
)

THEN = _phrases(
    "yesterday|last night|last week|this morning|on monday|on tuesday|on wednesday|on thursday|"
    "on friday|on saturday|on sunday|last month|last year|two days ago|earlier|the other day|ages ago|"
    "over the weekend|a while ago|years ago|before christmas|last summer|an hour ago|in march|"
    "in september|during lunch|after the show|at midnight|back then|when we were young|the whole time|"
    "for hours"
)

OFTEN = _phrases(
    "every day|most days|every weekend|once a week|all the time|on sundays|every morning|before work|"
    "sometimes|twice a year|every night|on my own|after dinner|every summer|now and then|too much|"
    "on weekdays|whenever it rains|at least once a month|on fridays|all summer|with my eyes closed"
)

HOURS = _phrases(
    "at six|at seven|at eight|at nine|at ten|at noon|at three|at four|at five|around one|around two|"
    "around half past|by six|by seven|by eight|by midnight|at half seven|at quarter past|"
    "in ten minutes|in five|after nine|before ten"
)

NUMBERS = _words("two three four five six seven eight nine ten twelve fifteen twenty thirty fifty a_hundred")

DETERMINERS = _phrases(
    "the|the|the|my|my|a|a|that|this|our|your|another|his|her|the new|the old|my new|my old|every|"
    "their|one|the only|the other|a new|the first|the last|the whole|the wrong|a second"
)
MASS_DETERMINERS = _phrases(
    "the|some|my|more|the|all the|no|enough|those|our|your|new|any|most of the|too many|fresh|old"
)

RELATIONS = _phrases(
    "my mum|my dad|my sister|my brother|my wife|my husband|my son|my daughter|my boss|my cousin|"
    "my uncle|my aunt|my friend|my neighbour|my partner|my best friend|my grandma|my girlfriend|"
    "my boyfriend|my roommate|grandad|my teacher|my nephew|my niece|the landlord|mum|dad|nan|"
    "my in-laws' friend|my old flatmate"
)

NAMES = _words(
    "james mary john linda robert susan michael karen david lisa william nancy richard betty joseph "
    "helen thomas sandra charles donna chris carol daniel ruth matthew sharon anthony michelle mark "
    "laura donald sarah steven kim paul jessica andrew emily josh emma kevin amy brian anna george "
    "rachel edward kate ryan julia jason grace jeff alice gary rose nick jane eric diana jacob maria "
    "larry sophie justin claire scott olivia ben lucy sam zoe greg chloe frank molly patrick hannah "
    "jack ella dennis leah jerry lily tyler mia aaron eva adam clara henry ivy nathan nina doug ali "
    "peter omar kyle fatima noah priya ethan mei jeremy yuki keith ana roger carlos tony jose luke "
    "diego max marco leo ivan alex andre simon hugo tim erik ian oscar neil felix dave raj mike sanjay"
)

TOWN = _phrases(
    "at home|in town|at the station|at the park|at the corner shop|on the bus|at the airport|in london|"
    "in york|in chicago|in boston|in dublin|in sydney|in glasgow|in texas|in manchester|in toronto|"
    "down the road|at my place|at mum's|in the city|at the office|upstairs|at the beach|in the village|"
    "at the usual place|by the river|near the bridge|at the hotel|at uni|in new york|in california|"
    "in leeds|in melbourne|in denver|in seattle|at the coffee shop|on the corner|around here|"
    "over there|in bristol|in wales|in florida|outside"
)

AMERICAN = _pairs(
    "mum:mom mum's:mom's film:movie football:soccer colour:color favourite:favorite neighbour:neighbor "
    "neighbours:neighbors colourful:colorful cosy:cozy draughty:drafty defence:defense grey:gray "
    "tyre:tire lorry:truck motorway:highway petrol:gas jumper:sweater nappy:diaper maths:math "
    "tap:faucet wardrobe:closet autumn:fall holidays:vacation cinema:theater garden:yard pub:bar "
    "chips:fries rumour:rumor favour:favor labour:labor practise:practice practised:practiced "
    "practising:practicing cancelled:canceled cancelling:canceling grandad:grandpa nan:grandma "
    "uni:college flatmate:roommate windscreen:windshield fridge:refrigerator offence:offense "
    "pharmacy:drugstore bill:check nursery:daycare hospital:hospital shop:store queue:line boot:trunk "
    "motorbike:motorcycle"
)
AUSTRALIAN = _pairs(
    "afternoon:arvo barbecue:barbie breakfast:brekkie football:footy present:pressie film:movie"
)
SCOTTISH = dict(
    pair.split(":") for pair in ["little:wee", "small:wee", "kids:weans", "girl:lass", "guy:lad", "mum:mam"]
)

TEXTING = _pairs(
    "you:u are:r please:pls because:cos tomorrow:tmrw tonight:2nite people:ppl before:b4 for:4 to:2 "
    "though:tho about:bout going:goin message:msg weekend:wknd probably:prob birthday:bday really:rly "
    "right:rite with:w see:c minutes:mins definitely:defo  your:ur love:luv  what:wat and:n i'm:im "
    "can't:cant don't:dont  just:jus"
)

PROPER = {
    word: word.capitalize()
    for word in _words(
        "monday tuesday wednesday thursday friday saturday sunday march june september october christmas "
        "london york chicago boston dublin sydney glasgow texas manchester toronto california leeds "
        "melbourne denver seattle bristol wales florida paris spain rome french i'm i'll"
    )
} | {"i": "I"}
