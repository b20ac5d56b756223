"""The words of the demo world: how each trait of a film shows in its title and its plot."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from numpy.random import Generator

Kind = TypeVar("Kind")
Option = TypeVar("Option")


def phrases(text: str) -> tuple[str, ...]:
    """The phrases of a list, which bars separate."""
    return tuple(" ".join(phrase.split()) for phrase in text.split("|"))


def table(kind: Callable[..., Kind], text: str) -> tuple[Kind, ...]:
    """One `kind` per `= name`, with the lists that follow, one to a line; indented lines continue a list."""
    entries = text.replace("\n    ", " ").split("= ")[1:]
    return tuple(entry(kind, *lines.strip().split("\n")) for lines in entries)


def entry(kind: Callable[..., Kind], name: str, *lines: str) -> Kind:
    """One `kind` from its name and its lines, each a field, a colon and a list."""
    lists = (line.split(":", 1) for line in lines)
    return kind(name=name, **{field: phrases(text) for field, text in lists})


PAST = phrases("steam | jazz | forties | sixties | today")


@dataclass(frozen=True)
class Era:
    """When a film is set."""

    name: str
    whens: tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """Where a film is set; `places` open with a preposition, `images` are words that colour a title."""

    name: str
    places: tuple[str, ...]
    scenes: tuple[str, ...]
    images: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Genre:
    """What kind of film it is; `premises` drive its own plots, `turns` lend it to films of another genre."""

    name: str
    settings: tuple[str, ...]
    roles: tuple[str, ...]
    nouns: tuple[str, ...]
    premises: tuple[str, ...]
    turns: tuple[str, ...]
    eras: tuple[str, ...] = PAST


@dataclass(frozen=True)
class Theme:
    """What a film is really about; `subjects` follow the word "about"."""

    name: str
    titles: tuple[str, ...]
    subjects: tuple[str, ...]


@dataclass(frozen=True)
class Mood:
    """How a film feels; `tones` are for titles, `characters` for heroes, and `verdicts` are sentences."""

    name: str
    tones: tuple[str, ...]
    characters: tuple[str, ...]
    adjectives: tuple[str, ...]
    verdicts: tuple[str, ...]


@dataclass(frozen=True)
class Film:
    """The hidden traits of one film; the first genre leads."""

    genres: tuple[Genre, ...]
    setting: Setting
    era: Era
    theme: Theme
    mood: Mood

    @property
    def traits(self) -> frozenset[str]:
        single = (self.setting, self.era, self.theme, self.mood)
        return frozenset(trait.name for trait in (*self.genres, *single))


TITLES = (
    "the {tone} {role}",
    "the {role} of {spot}",
    "the {image} {noun}",
    "{name} and the {noun}",
    "{a_noun} for {name}",
    "{theme} {place}",
    "the {tone} {noun}",
    "the {noun} {place}",
)
OPENINGS = (
    "{when}, {hero} {scene} {premise}.",
    "{scene}, {when}, {hero} {premise}.",
    "{when}, {scene}, {hero} named {name} {premise}.",
    "{name} is {hero} {scene} who, {when}, {premise}.",
)
REFLECTIONS = (
    "{verdict} It is {a_mood} {form} about {subject}.",
    "{a_mood} {form} about {subject}. {verdict}",
)
FORMS = ("story", "tale", "film", "picture", "fable")
SMALL_WORDS = frozenset(("a", "an", "and", "at", "aboard", "beyond", "for", "in", "of", "on", "the"))


def draw_words(film: Film, rng: Generator) -> dict[str, str]:
    """One wording of each trait, under the names that the templates use."""
    lead, mood, setting = film.genres[0], film.mood, film.setting
    place, noun, role = pick(rng, setting.places), pick(rng, lead.nouns), pick(rng, lead.roles)
    first, second = (mood.adjectives[choice] for choice in rng.permutation(len(mood.adjectives))[:2])
    return {
        "place": place,
        "spot": place.split(" ", 1)[1],
        "scene": pick(rng, setting.scenes),
        "image": pick(rng, setting.images),
        "name": pick(rng, setting.names),
        "noun": noun,
        "a_noun": with_article(noun),
        "role": role,
        "hero": with_article(f"{pick(rng, mood.characters)} {role}"),
        "premise": pick(rng, lead.premises),
        "turn": pick(rng, film.genres[1].turns) if len(film.genres) > 1 else "",
        "when": pick(rng, film.era.whens),
        "theme": pick(rng, film.theme.titles),
        "subject": pick(rng, film.theme.subjects),
        "tone": pick(rng, mood.tones),
        "a_mood": with_article(f"{first}, {second}"),
        "verdict": pick(rng, mood.verdicts),
        "form": pick(rng, FORMS),
    }


def draw_title(words: dict[str, str], rng: Generator) -> str:
    """A title in title case."""
    first, *rest = pick(rng, TITLES).format_map(words).split()
    cased = (word if word in SMALL_WORDS else capitalise(word) for word in rest)
    return " ".join([capitalise(first), *cased])


def draw_plot(words: dict[str, str], rng: Generator) -> str:
    """A plot: what happens, the turn it takes if it has a second genre, what it is about and how it feels."""
    opening, reflection = (pick(rng, forms).format_map(words) for forms in (OPENINGS, REFLECTIONS))
    events = [opening, words["turn"]]
    sentences = [reflection, *events] if rng.random() < 0.3 else [*events, reflection]
    return " ".join(capitalise(sentence) for sentence in sentences if sentence)


def with_article(phrase: str) -> str:
    vowel = phrase[0] in "aeiou" and not phrase.startswith("uni")
    return f"an {phrase}" if vowel else f"a {phrase}"


def capitalise(text: str) -> str:
    return text[0].upper() + text[1:]


def pick(rng: Generator, options: Sequence[Option]) -> Option:
    return options[int(rng.integers(len(options)))]


# The first year in which a film set in each era may be released.
EARLIEST = {"steam": 1948, "jazz": 1948, "forties": 1949, "sixties": 1969, "today": 2008, "future": 1966}

# Genres whose turns fit any era and setting, outer space included.
TIMELESS = phrases("Comedy | Heist | Romance | Mystery | Horror | Musical | Sports | Drama")

ERAS = table(
    Era,
    """
= steam
whens: in 1874 | in the age of steam | in the winter of 1889 | in the last years of the nineteenth century
    | in the days of gaslight and horses
= jazz
whens: in 1926 | between the wars | in the roaring twenties | at the height of the jazz age
    | in the year of the great crash
= forties
whens: in 1943 | with half the world at war | in the lean years after the war | in the blackout of 1941
    | in the age of ration books
= sixties
whens: in the summer of 1962 | in the swinging sixties | in 1968 | in the years of the space race
    | in the age of miniskirts and transistor radios
= today
whens: today | in the present day | in our own time | in an age of smartphones | these days
= future
whens: in 2187 | a century from now | in a distant future | long after the first colonies | in the year 2094
""",
)

SETTINGS = table(
    Setting,
    """
= Italy
places: in Naples | in Siena | in Venice | in Palermo | in Trastevere | in Umbria | in Amalfi
scenes: in the back streets of Naples | in a shuttered palazzo on a Venetian canal
    | in a hill town above Siena | on a lemon farm in Sicily | in a Roman courtyard hung with laundry
images: lemon | marble | terracotta | olive | palazzo
names: Lucia | Matteo | Chiara | Salvatore | Ornella | Tommaso
= Paris
places: in Montmartre | in Paris | on the Left Bank | in Belleville | on Rue Lepic | on the Pont Neuf
scenes: in an attic in Montmartre | on the quays of the Seine | among the cafés of the Left Bank
    | in a narrow street behind Sacré-Cœur | in a Parisian department store
images: boulevard | absinthe | zinc | rooftop | Seine
names: Odile | Étienne | Mathilde | Lucien | Colette | Bastien
= Japan
places: in Kyoto | in Osaka | in Nara | in Kanazawa | in Shinjuku | in Hokkaido
scenes: in a wooden inn outside Kyoto | among the neon alleys of Osaka | in a Japanese fishing village
    | beside a temple pond in Nara | in the snow country of Hokkaido
images: paper | cherry | lacquer | lantern | bamboo
names: Haruko | Kenji | Michiko | Takeshi | Sayuri | Isamu
= Scotland
places: on Skye | in the Hebrides | in Glencoe | in Edinburgh | on Orkney | in Oban
scenes: on a windswept island in the Hebrides | in a draughty Highland castle
    | in a peat-cutting village on Skye | among the closes of old Edinburgh | beside a loch that never thaws
images: heather | peat | thistle | kelp | granite
names: Morag | Callum | Isla | Hamish | Eilidh | Fergus
= Mexico
places: in Oaxaca | in Veracruz | in Guanajuato | in Puebla | in Sonora | in Mérida
scenes: in a mining town near Guanajuato | in the markets of Oaxaca | on a failing hacienda in Sonora
    | on the painted streets of Puebla | in the harbour bars of Veracruz
images: marigold | agave | cactus | adobe | silver
names: Dolores | Emiliano | Ximena | Joaquín | Pilar | Rodrigo
= India
places: in Bombay | in Jaipur | in Kerala | in Calcutta | in Darjeeling | in Varanasi
scenes: in a crowded Bombay tenement | on a tea estate above Darjeeling | in the pink lanes of Jaipur
    | on the backwaters of Kerala | by the burning steps of Varanasi
images: monsoon | saffron | jasmine | mango | sandalwood
names: Meera | Arjun | Lakshmi | Vikram | Sunita | Devdas
= New York
places: in Brooklyn | in Harlem | on Mulberry Street | in Manhattan | on Coney Island | in Queens
scenes: in a walk-up in Brooklyn | in the skyscrapers of Manhattan | on a noisy block in Harlem
    | beneath the elevated line in Queens | on the winter boardwalk of Coney Island
images: subway | brownstone | sidewalk | skyline | taxicab
names: Frankie | Rosalind | Abe | Delphine | Moe | Loretta
= Arctic
places: in Tromsø | on Svalbard | in Lapland | in Greenland | in the Polar Night | on the Pack Ice
scenes: in a whaling port above the Arctic Circle | at a weather station on Svalbard
    | among reindeer herders in Lapland | on the ice shelf in the months without sun
    | in a red cabin on a Norwegian fjord
images: ice | aurora | reindeer | fjord | snow
names: Ingrid | Aksel | Sigrid | Leif | Solveig | Nils
= desert
places: in the Sahara | in Marrakesh | in Timbuktu | in the Dunes | in Tangier | in the Empty Quarter
scenes: at an oasis in the Sahara | in the souks of Marrakesh | on a caravan route across the dunes
    | in a mud-brick fort at the edge of the desert | in a salt town where it never rains
images: sand | caravan | date-palm | oasis | salt
names: Leila | Idris | Zahra | Omar | Amina | Tariq
= prairie
places: in Wyoming | in Abilene | in Montana | on the Prairie | in Cheyenne | in Dry Creek
scenes: on a cattle ranch in Wyoming | in a one-street prairie town | on the high plains of Montana
    | in a dusty settlement at the end of the trail | on a homestead miles from any neighbour
images: sagebrush | copper | tumbleweed | saddle | buffalo
names: Clementine | Wyatt | Josephine | Amos | Hattie | Silas
= kitchen
places: at Table Nine | in the Kitchen | at the Copper Pot | at the Golden Ladle | at the Last Oyster
scenes: in the kitchen of a struggling restaurant | at the stoves of a grand hotel | in a family bakery
    | behind the counter of a noodle shop | among the cooks and waiters of a famous dining room
images: butter | cinnamon | soufflé | truffle | vinegar
names: Agnes | Bruno | Margot | Anton | Celeste | Hugo
= theatre
places: at the Orpheum | at the Old Palace | in the Wings | at the Alhambra | in Row A
    | on the Revolving Stage
scenes: backstage at a provincial theatre | in a touring company of actors
    | at an opera house in need of a roof | in the dressing rooms of a variety hall
    | under the stage of an old playhouse
images: velvet | footlight | curtain | greasepaint | mirror
names: Beatrix | Laurence | Viola | Ambrose | Ottoline | Jasper
= school
places: at St. Brannock's | at Ravenhurst | in the Lower Sixth | in Room Twelve | at Miss Pym's Academy
scenes: at a boarding school on the moors | in a village classroom with one stove
    | in the library of an old university | at an academy for difficult children
    | in the staff room of a crowded high school
images: chalk | blazer | inkwell | ivy | latin
names: Winifred | Edmund | Harriet | Rupert | Cecily | Barnaby
= train
places: on the Night Express | in Carriage Four | on the Trieste Line | on the Last Sleeper
    | at Platform Zero
scenes: aboard a night train to Trieste | in the dining car of an express
    | at a junction where trains seldom stop | in the sleeping carriages of the Trans-Siberian
    | on a mountain railway blocked by an avalanche
images: railway | whistle | sleeper | platform | lamplight
names: Irena | Viktor | Magda | Stefan | Katya | Anselm
= ship
places: on the Albatross | aboard the Meridian | on the South Sea | in Safe Harbour | on the Spanish Main
scenes: on a cargo ship bound for Valparaíso | in the cabins of an ocean liner
    | on a leaking schooner in the tropics | aboard a lightship in the fog
    | among the crew of a herring boat
images: coral | anchor | tide | pearl | storm
names: Marina | Elias | Coralie | Jonah | Perpetua | Gideon
= space
places: in Orbit | on Titan | aboard the Kepler | on Ceres | on the Moon | beyond Neptune
scenes: on a space station circling Saturn | in a lunar mining camp
    | aboard a starship a lifetime from Earth | on an asteroid with a failing reactor
    | in a glass dome on Mars
images: gravity | comet | titanium | starlight | vacuum
names: Nova | Castor | Lyra | Orin | Vesper | Zeno
""",
)

GENRES = table(
    Genre,
    """
= Comedy
settings: Italy | New York | kitchen | theatre | school
roles: dentist | wedding planner | hypochondriac | matchmaker | undertaker | piano tuner | landlady
nouns: mix-up | umbrella | goose | wedding cake | moustache | misunderstanding
premises: is mistaken for somebody important and dares not say so
    | agrees to a tiny lie that grows by the hour | must host three rival families under one roof
    | inherits a goose, a debt and a very rude parrot | tries to cancel a wedding without anyone noticing
turns: Every attempt to fix things makes them funnier.
    | Farce breaks out, with slammed doors and wrong trousers.
    | The misunderstandings pile up until nobody can keep a straight face.
= Heist
settings: Italy | Paris | New York | train
roles: safecracker | forger | getaway driver | pickpocket | locksmith | jewel thief | con artist
nouns: vault | ruby | alibi | master key | diamond | blueprint
premises: is talked into one last job | gathers a crew to empty the safest vault in the land
    | swaps a priceless necklace for a perfect copy | plots to steal a painting that was stolen once already
    | has nine minutes to crack a lock nobody has ever opened
turns: There is a safe to be opened before dawn, and the crew is one thief short.
    | The plan to steal the jewels is perfect, except for the people in it.
    | Somebody has drawn a map of the alarms, and a robbery is under way.
= Romance
settings: Italy | Paris | Mexico | kitchen
roles: florist | letter-writer | dance teacher | bookseller | dressmaker | translator | bachelor
nouns: love letter | waltz | kiss | bouquet | proposal | valentine
premises: falls for a stranger who leaves in a week | answers a love letter meant for someone else
    | meets an old flame on the eve of a wedding
    | agrees to a marriage of convenience and regrets the convenience
    | keeps missing the right person by a minute
turns: An unlikely courtship begins with a borrowed coat.
    | Two people who cannot stand each other fall in love.
    | Stolen glances turn into a romance neither had planned.
= Mystery
settings: Scotland | kitchen | theatre | train
roles: detective | coroner | amateur sleuth | constable | archivist | insurance investigator
    | crime reporter
nouns: corpse | riddle | cipher | locked room | clue | anonymous letter
premises: investigates a death that everyone calls an accident | finds a body where a guest should be
    | follows a trail of anonymous letters | reopens a case the town would rather forget
    | has one night to learn who among the guests is the killer
turns: Then a body is found, and everyone has a motive.
    | A disappearance leaves one clue and too many suspects.
    | Someone present is a murderer, and the doors are locked.
= Science Fiction
settings: Japan | New York | Arctic | space
roles: engineer | android | astronomer | clone | robot mechanic | time traveller | geneticist
nouns: machine | signal | paradox | satellite | hologram | experiment
premises: receives a signal from a place where nobody can be alive
    | builds a machine that remembers the future | wakes to find a copy already living at home
    | teaches an artificial mind to lie | discovers that the same day has been erased twice
turns: The visitor turns out not to be human. | A machine begins to think, and to want things.
    | Time itself has started to run backwards.
eras: sixties | today | future
= Western
settings: Mexico | desert | prairie
roles: gunslinger | sheriff | bounty hunter | horse breaker | outlaw | rancher | stagecoach driver
nouns: revolver | stallion | badge | wagon | bounty | showdown
premises: rides in to collect a bounty and stays to defend the town | pins on a badge nobody else will wear
    | drives a thousand head of cattle through hostile country | faces a gang of rustlers alone
    | hunts the outlaws who burned down the ranch
turns: By noon there will be a duel in the main street.
    | A posse is saddling up, and the horses are restless.
    | Riders with drawn guns come down from the hills.
eras: steam | jazz
= Horror
settings: Japan | Scotland | Arctic | prairie | ship
roles: gravedigger | medium | night nurse | exorcist | caretaker | taxidermist | orphan
nouns: curse | crypt | whisper | coffin | doll | shadow
premises: hears the dead knocking on the wrong side of the wall
    | takes a post in a house where no one sleeps | wakes something that was buried for good reason
    | sees the same pale child in every photograph | opens a door that was nailed shut
turns: Something unseen has begun to walk the corridors at night. | The dead, it seems, have not quite gone.
    | One by one, people vanish, and the walls begin to whisper.
= Musical
settings: Paris | Mexico | India | New York | theatre
roles: nightclub singer | violinist | tap dancer | songwriter | cellist | bandleader | choirmaster
nouns: melody | tango | serenade | chorus | nocturne | trumpet
premises: dreams of singing a song that nobody can forget | puts together a band out of misfits
    | must finish a symphony by opening night | dances every night for an empty room
    | hears a tune in the street and sets out to find its composer
turns: Everyone bursts into song just when silence would be wiser. | A ragged orchestra finds its rhythm.
    | Between the numbers there is dancing, on tables if need be.
= War
settings: Arctic | desert | train | ship
roles: army nurse | deserter | codebreaker | sergeant | war photographer | resistance courier | medic
nouns: barricade | ceasefire | regiment | bridge | white flag | telegram
premises: smuggles refugees past the front line | is ordered to hold a bridge that no longer matters
    | carries a last message through enemy fire | shelters an enemy soldier in secret
    | counts the days to an armistice that may never come
turns: The front draws closer, and the guns can be heard at night.
    | Soldiers march in, and neighbours must choose sides.
    | A call-up letter arrives, and nothing is safe any more.
eras: steam | forties
= Sports
settings: Scotland | India | prairie | school
roles: boxer | goalkeeper | cyclist | swimming coach | jockey | chess champion | marathon runner
nouns: penalty | title fight | relay | comeback | final lap | trophy
premises: trains a team that has never won a match | steps back into the ring after ten years
    | enters a race that only the foolish finish | coaches a rival's child to the championship
    | has one season left to win the cup
turns: It all comes down to the final match. | A hopeless team of amateurs enters the championship.
    | Training starts at dawn, and the big race is a month away.
= Adventure
settings: India | Arctic | desert | ship
roles: explorer | mapmaker | smuggler | mountaineer | balloonist | treasure hunter | naturalist
nouns: compass | lost map | treasure | expedition | idol | balloon
premises: sets out to find a city that appears on only one map | races a rival to a sunken treasure
    | leads an expedition into country from which none returned
    | follows a dead uncle's compass to the end of the world | crosses a continent to return a stolen idol
turns: An old map turns up, and with it a journey into the unknown.
    | A chase begins over cliffs, rapids and rope bridges.
    | Buried treasure is only the first of the perils ahead.
= Fantasy
settings: Japan | Scotland | Mexico | school
roles: witch | clockmaker | dragon keeper | changeling | apprentice wizard | puppet maker | giant
nouns: spell | dragon | enchanted clock | unicorn | wishing well | talisman
premises: trades a shadow for three wishes | discovers a door that opens into last winter
    | hatches a dragon's egg and must hide it from the neighbours | bargains with the king of the crows
    | mends a clock that makes the dead dance
turns: Animals begin to speak, and they have opinions.
    | An old spell is broken, and magic leaks into everything.
    | Behind the mirror lies a kingdom that needs an heir.
= Spy
settings: Paris | desert | train | ship
roles: double agent | ambassador | defector | cipher clerk | assassin | courier | radio operator
nouns: dossier | safe house | microfilm | passport | password | defection
premises: is sent to trap a traitor who may be a friend
    | must carry a roll of microfilm across a closed border | poses as a diplomat to flush out a mole
    | is offered a new passport in exchange for a name
    | intercepts a message that was never meant to be sent
turns: Someone here is a secret agent, and the code has been broken.
    | Foreign spies close in, and no passport is what it seems.
    | A briefcase of state secrets changes hands.
eras: jazz | forties | sixties | today
= Drama
settings: Japan | India | prairie | kitchen | school
roles: schoolteacher | midwife | factory hand | country doctor | judge | fisherman | seamstress
nouns: harvest | verdict | inheritance | farewell | empty chair | winter
premises: faces a choice that will divide the family | cares for a parent who no longer knows the house
    | goes back to work after a long illness | stands up to the most powerful landlord in the district
    | raises a child who belongs to someone else
turns: An illness in the family changes what everyone wants.
    | A court case lays bare the life of a whole household. | Old wounds are opened at the dinner table.
""",
)

THEMES = table(
    Theme,
    """
= revenge
titles: Blood Price | An Eye for an Eye | The Reckoning | A Score to Settle
subjects: revenge and what it costs | getting even with those who did wrong
    | a grudge nursed for twenty years | the hunger for vengeance | paying back an old injury
= forgiveness
titles: Forgive Me | Second Mercy | The Pardon | Amends
subjects: learning to forgive | mercy shown to those who least deserve it | asking for pardon too late
    | making amends for a terrible mistake | the slow work of reconciliation
= siblings
titles: Three Sisters | My Brother's Keeper | Twins | The Elder Brother
subjects: sisters who have not spoken in years | the rivalry of two brothers | twins raised apart
    | what siblings owe each other | growing up in an older brother's shadow
= parents
titles: My Father's House | Daughters | A Mother's Secret | Like Father
subjects: a father and daughter who are too much alike | mothers and the children who leave them
    | a son searching for his father | becoming a parent before one is ready
    | what parents hide from their children
= friendship
titles: Good Company | Old Friends | The Odd Pair | Comrades
subjects: a friendship between two outsiders | the loyalty of old friends
    | unlikely companions who become inseparable | friends who stand by each other whatever happens
    | comradeship among misfits
= ageing
titles: Late Autumn | Grey Hair | The Last Birthday | Seventy-Nine
subjects: growing old without growing wise | the indignities and comforts of old age | life after seventy
    | the last summer of a long life | being elderly in a world for the young
= ambition
titles: The Climber | Top of the Bill | Hungry for Glory | All or Nothing
subjects: ambition and its price | the climb from nothing to fame | wanting success more than happiness
    | the hunger to be the greatest | a talent that devours everything else
= betrayal
titles: Judas Kiss | A Traitor's Smile | Broken Vows | Sold
subjects: betrayal by the one person trusted completely | a traitor in the circle | vows broken in secret
    | being deceived by those closest | the moment when trust is sold
= grief
titles: Mourning Song | After the Funeral | The Absence | Black Ribbon
subjects: grief and what comes after | mourning a lost child | learning to live with loss
    | the first year of widowhood | saying goodbye to the dead
= escape
titles: Breakout | Over the Wall | No Return Ticket | The Runaways
subjects: breaking free at any price | running away from a life that does not fit | prisoners of every sort
    | the dream of escape | slipping out of captivity
= money
titles: Rich Relations | Loose Change | The Rent | Silver Spoons
subjects: money and those who have none | rich people and the servants who know them
    | poverty, pride and unpaid rent | the gap between the wealthy and the poor
    | a fortune that spoils everyone it touches
= memory
titles: Forget Me | The Photograph | What We Remember | Half-Remembered
subjects: memory and the tricks it plays | a past that nobody remembers the same way
    | forgetting and being forgotten | recollections of a vanished childhood
    | a mind losing hold of its memories
= homecoming
titles: The Long Way Home | The Return | Home by Christmas | Back
subjects: coming home after many years | a return to the place one swore to leave
    | finding the old house changed | the long road back to one's birthplace | belonging somewhere again
= double lives
titles: The Impostor | Two Faces | Under Another Name | The Mask
subjects: leading a double life | a false identity that fits too well | pretending to be someone else
    | the masks people wear | an impostor who forgets the truth
""",
)

MOODS = table(
    Mood,
    """
= playful
tones: Crooked | Merry | Cheeky | Topsy-Turvy | Ridiculous
characters: cheeky | clumsy | hilariously vain | absent-minded | mischievous
adjectives: playful | witty | mischievous | funny | light-hearted
verdicts: It is very funny from the first minute to the last. | Expect to laugh out loud.
    | The jokes come thick and fast. | A comic delight, as silly as it is clever.
    | It never takes itself seriously, and it is great fun.
= melancholy
tones: Sorrowful | Fading | Weeping | Forsaken | Heartbroken
characters: heartbroken | lonely | homesick | recently widowed | sorrowful
adjectives: wistful | melancholy | sad | elegiac | mournful
verdicts: Bring a handkerchief. | It is beautiful and terribly sad. | The sadness of it lingers for days.
    | It ends in tears and falling leaves. | It breaks your heart, very softly.
= tense
tones: Desperate | Midnight | Hunted | Final | Breathless
characters: hunted | desperate | nervous | hard-pressed | frightened
adjectives: tense | nerve-racking | suspenseful | taut | gripping
verdicts: The suspense is almost unbearable. | It keeps you on the edge of your seat.
    | Your pulse will race until the last second. | Every minute tightens the screw.
    | It is a nail-biter that never lets go.
= dreamlike
tones: Invisible | Sleeping | Moonlit | Floating | Dreaming
characters: sleepwalking | dreamy | enigmatic | half-imaginary | moonstruck
adjectives: dreamlike | hypnotic | surreal | hazy | hallucinatory
verdicts: It drifts by like a strange dream. | Nothing in it is quite real.
    | It follows the logic of dreams. | Watching it is like sleepwalking through a painting.
    | Its images float free of any explanation.
= warm
tones: Gentle | Golden | Kindly | Beloved | Generous
characters: kind-hearted | generous | gentle | much-loved | good-natured
adjectives: tender | warm-hearted | heartwarming | affectionate | big-hearted
verdicts: It is full of kindness. | You come out of it feeling loved.
    | It warms the heart like a bowl of soup. | It is comforting, generous and full of hugs.
    | It believes in the goodness of people.
= bleak
tones: Merciless | Bitter | Ashen | Damned | Pitiless
characters: ruined | doomed | embittered | friendless | condemned
adjectives: bleak | unforgiving | grim | brutal | hopeless
verdicts: There is no hope in it, and no comfort. | Nobody is saved in the end.
    | It ends as badly as it can. | It looks into the abyss without blinking.
    | It is cold, cruel and without mercy.
""",
)
