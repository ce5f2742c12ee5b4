"""The themes, their classes and the icon names that count as each class.

A class is written as `name: synonym, synonym`. The name itself is always a synonym. Words with two common meanings
(turkey, date, orange, palm, mouse, bat, crane, seal) are not classes. Classes that the same drawing could be called
by (taxi and car, shop and market stall) are merged or left out.
"""

Words = tuple[str, ...]

TEMPLATE = "a picture of a {}."
FASHION_TEMPLATE = "a picture of a {}, a piece of clothing."

_THEMES: dict[str, str] = {
    "animals": """
        cat: kitten, kitty, cat sitting, cat sit
        dog: puppy, dog sitting, guide dog, service dog, poodle, corgi
        fish: tropical fish, goldfish, clownfish
        bird: sparrow, dove, parrot, eagle, pigeon
        bug: insect, beetle, ladybug, ladybird, lady beetle
        rabbit: bunny, hare
        horse: horse riding, unicorn, carousel horse
        pig: boar, piglet
        butterfly: butterflies
        paw print: paw, paws, paw prints, animal print, dog paw, cat paw
        shrimp: prawn, lobster, fried shrimp
        chicken: rooster, hen, baby chick, hatching chick, front facing baby chick, chick""",
    "food": """
        apple: red apple, green apple, apple fruit, apple whole, fruit apple
        egg: eggs, fried egg, egg fried, cooking egg, boiled egg
        cookie: cookies, biscuit, cookie man, cookie bite
        cake: birthday cake, cake slice, cupcake, shortcake, muffin, cake candle, cake birthday
        ice cream: icecream, soft ice cream, ice cream cone, popsicle, ice pop, ice cream bowl
        pizza: pizza slice, slice of pizza
        carrot: carrots
        cheese: cheese wedge, cheese slice
        hamburger: burger, cheeseburger, hamburger drink
        beer: beer mug, beer glass, beer stein, mug beer, clinking beer mugs, beers, beer mugs
        candy: lollipop, candies, candy cane, sweets
        mushroom: champignon, mushrooms
        cherry: cherries
        coffee: coffee cup, coffee mug, hot beverage, cup, mug, teacup, cup hot, tea cup, hot coffee, coffee togo""",
    "vehicles": """
        car: automobile, sedan, sport utility vehicle, hatchback, sports car, oncoming automobile, racing car, race car,
            suv
        bus: autobus, oncoming bus, bus school, school bus, double decker bus, trolleybus, minibus
        truck: delivery truck, lorry, articulated lorry, truck delivery, pickup truck, semi truck, dump truck,
            truck front
        train: locomotive, steam locomotive, high speed train, bullet train, metro, subway, train front
        bicycle: bike, cycle, bikes, mountain bike
        motorcycle: motorbike, moped, motor scooter, motor bike
        airplane: plane, aeroplane, aircraft, small airplane, jet, airliner
        helicopter: helicopters, chopper
        ship: cruise ship, cruise, boat, steamship, ferry, passenger ship, ferry boat, cargo ship, speedboat
        sailboat: sailing boat, sail boat, sailing, boat sail, yacht
        rocket: spaceship, rocket launch, space shuttle, shuttle space, rocketship, spacecraft""",
    "objects": """
        key: old key, door key, keys
        lock: padlock, locked, lock closed
        umbrella: umbrella open, beach umbrella, closed umbrella, open umbrella
        scissors: scissor, cut scissors
        gift: present, gift box, wrapped gift, giftbox
        trophy: trophies, winner cup, trophy cup
        bell: bells, notification bell, alarm bell
        hourglass: hourglass done, hourglass not done, hourglass end, hourglass start, hourglass half, sand clock
        light bulb: lightbulb, bulb, electric light bulb, idea bulb
        camera: photo camera, camera with flash, digital camera
        anchor: anchors, ship anchor
        crown: queen crown, king crown, crowns
        headphones: headphone, headset
        glasses: eyeglasses, sunglasses, eyeglass, spectacles, eye glasses""",
    "nature": """
        sun: sunny, sunshine, sun bright
        moon: crescent moon, crescent, half moon, moon crescent
        cloud: clouds, cloudy
        leaf: leaves, leafs, maple leaf, fallen leaf
        tree: evergreen tree, pine tree, deciduous tree, trees, pine, fir tree, forest, tree deciduous, tree evergreen
        flower: tulip, rose, sunflower, blossom, hibiscus, cherry blossom, daisy, flowers, bouquet, flower tulip
        snowflake: snowflakes, snow flake
        fire: flame, campfire, bonfire, flames, fire flame
        rainbow: rainbows
        mountain: mountains, snow capped mountain, mount fuji, hill, volcano
        tornado: cyclone, hurricane, twister
        cactus: cacti, desert cactus
        drop: droplet, water drop, raindrop, drops, droplets, waterdrop, water droplet
        planet: saturn, ringed planet, planets, planet ring""",
    "places": """
        house: home, houses, house building, house chimney, cottage
        hospital: hospital building, clinic, building hospital
        bank: bank building, building bank, museum, courthouse
        castle: european castle, japanese castle, fortress, tower castle
        church: chapel, cathedral, church building
        factory: industry, factory building, manufacturing, power plant, nuclear plant
        tent: camping tent, camping, camp, circus tent
        mosque: mosques, islamic mosque
        shop: store, convenience store, storefront, market stall, shopfront, kiosk
        bridge: bridge at night, bridges, suspension bridge
        windmill: wind turbine, windmills, turbine, wind power
        skyscraper: building, buildings, office building, skyline""",
    "science": """
        pill: pills, capsule, medication, capsules
        syringe: injection, needle syringe
        stethoscope: stethoscopes
        microscope: microscopes
        telescope: telescopes, astronomy telescope
        atom: atoms, atomic, atom symbol
        dna: dna strand, genetics, helix, double helix
        flask: beaker, erlenmeyer flask, conical flask, lab flask, alembic
        test tube: testtube, test tubes, lab tube
        thermometer: thermometers, thermometer half
        brain: brains, human brain
        tooth: teeth, molar
        virus: coronavirus, microbe, bacteria, germ, covid, bacterium
        skull: skulls, death skull""",
}

FASHION_CLASSES = (
    "t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip

UI_WORDS = frozenset(
    """arrow arrows chevron chevrons caret angle toggle align border corner sort filter list grid menu text font heading
    format expand collapse minimize maximize zoom undo redo refresh reload sync rotate flip move drag resize fullscreen
    rss wifi bluetooth usb signal cursor pointer select deselect checkbox radio input form login logout plus minus add
    remove delete close cancel check done ok yes no more less next previous back forward up down left right top bottom
    center middle horizontal vertical letter number underline strikethrough italic superscript subscript paragraph
    indent outdent quote hash hashtag percent asterisk ampersand at dot dots ellipsis loader loading spinner app apps
    api sdk css html js ts npm git github gitlab facebook twitter instagram linkedin youtube tiktok whatsapp telegram
    google amazon microsoft windows slack discord skype spotify dribbble behance pinterest reddit snapchat vimeo twitch
    paypal figma wordpress dropbox trello medium tumblr wechat vk steam docker linux chrome codepen mastodon threads
    status badge item row column columns layout panel sidebar widget component object group ungroup layer layers
    file files folder folders document calendar comment comments message user users dollar euro pound yen
    rupee""".split()  # noqa: SIM905
)

Synonyms = dict[Words, tuple[str, str]]


def parse_themes() -> dict[str, dict[str, list[Words]]]:
    """Theme -> class name -> the names (as words) that count as the class."""
    themes: dict[str, dict[str, list[Words]]] = {}
    for theme, text in _THEMES.items():
        classes: dict[str, list[Words]] = {}
        for line in text.replace(",\n", ",").strip().splitlines():
            name, _, rest = line.strip().partition(":")
            names = [name, *(part.strip() for part in rest.split(",") if part.strip())]
            classes[name] = [tuple(entry.split()) for entry in names]
        themes[theme] = classes
    return themes


def synonym_table() -> Synonyms:
    """Name (as words) -> (theme, class)."""
    table: Synonyms = {}
    for theme, classes in parse_themes().items():
        for name, entries in classes.items():
            for entry in entries:
                if table.setdefault(entry, (theme, name)) != (theme, name):
                    raise ValueError(f"{' '.join(entry)!r} names two classes: {table[entry][1]!r} and {name!r}")
    return table
