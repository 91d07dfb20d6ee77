"""What personas talk about: topics, each with the things people do in it.

A topic's `acts` are lines "base past ing: objects". An object is a countable noun ("cake"), a mass or plural
noun after `~` ("~bread") or one that takes no article after `=` ("=dinner"); `_` joins words of one phrase.
Every word was written for this file; nearly all are among the ten thousand most common English words.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topic:
    """Words of one subject. `acts` are (base, past, ing, objects); `places` come with their preposition."""

    name: str
    acts: tuple[tuple[str, str, str, tuple[str, ...]], ...]
    qualities: tuple[str, ...]
    places: tuple[str, ...]
    people: tuple[str, ...]


def _topic(name: str, acts: str, qualities: str, places: str, people: str) -> Topic:
    lines = []
    for line in acts.strip().splitlines():
        forms, objects = line.split(":")
        base, past, ing = forms.split()
        lines.append(
            (base.replace("_", " "), past.replace("_", " "), ing.replace("_", " "), tuple(objects.split()))
        )
    phrases = [tuple(words.replace("_", " ").split(",")) for words in (qualities, places, people)]
    return Topic(name, tuple(lines), *phrases)


TOPICS = (
    _topic(
        "cooking",
        """
        cook cooked cooking: =dinner =lunch ~rice ~pasta curry chicken ~vegetables soup roast =breakfast ~eggs
        bake baked baking: cake pie ~bread ~cookies ~potatoes pizza ~muffins
        burn burned burning: ~toast ~onions sauce pan cake =dinner
        try tried trying: recipe restaurant dish cheese ~spices salad menu
        order ordered ordering: pizza curry ~noodles =dessert burger ~chips
        chop chopped chopping: ~onions ~carrots ~garlic ~tomatoes ~mushrooms ~herbs
        buy bought buying: ~flour ~butter ~milk ~sugar ~lemons ~beans knife oven
        eat ate eating: sandwich steak ~leftovers ~fish apple ~chocolate
        """,
        "tasty,spicy,salty,sweet,fresh,burnt,hot,homemade,delicious,crispy,creamy,raw",
        "in_the_kitchen,at_the_market,at_that_italian_place,in_the_oven,at_the_table,at_the_new_cafe",
        "chef,waiter,cook",
    ),
    _topic(
        "football",
        """
        watch watched watching: match game final =football replay goal league
        play played playing: =football match game =defence =goalkeeper
        win won winning: match cup league game title derby
        lose lost losing: match game final ball place
        score scored scoring: goal penalty winner point
        miss missed missing: penalty game match train shot chance
        support supported supporting: club team side captain
        book booked booking: ~tickets pitch seat coach
        """,
        "brilliant,unlucky,fast,lazy,solid,nervous,offside,injured,defensive,amazing,dirty,late",
        "at_the_stadium,in_the_pub,on_the_pitch,at_training,away_from_home,on_the_bench,in_the_second_half",
        "manager,striker,referee,keeper,captain,coach",
    ),
    _topic(
        "work",
        """
        finish finished finishing: report budget presentation project draft contract
        send sent sending: invoice email file report update proposal summary
        check checked checking: ~numbers schedule ~figures inbox report plan
        attend attended attending: meeting conference workshop call interview
        move moved moving: meeting deadline desk call project
        print printed printing: document form contract agenda slide
        hire hired hiring: assistant manager designer team
        sign signed signing: contract form lease agreement
        prepare prepared preparing: presentation speech agenda budget interview
        """,
        "urgent,busy,boring,important,stressful,professional,confidential,overdue,productive,quiet,tired,ready",
        "at_the_office,in_the_meeting,on_the_call,at_my_desk,from_home,in_the_boardroom,at_head_office",
        "boss,manager,client,director,intern,assistant,team",
    ),
    _topic(
        "school",
        """
        study studied studying: ~maths =history =chemistry =biology chapter =french
        write wrote writing: essay paper thesis letter ~notes introduction
        pass passed passing: exam test course module class
        fail failed failing: exam test class course quiz
        read read reading: chapter textbook article book poem
        skip skipped skipping: class lecture lesson =breakfast seminar
        borrow borrowed borrowing: pen calculator laptop book ~notes
        hand_in handed_in handing_in: essay homework project assignment
        """,
        "difficult,easy,smart,confusing,strict,boring,interesting,hopeless,clever,academic,impossible,simple",
        "in_the_library,at_school,in_class,on_campus,in_the_exam,at_college,in_the_lecture",
        "teacher,professor,tutor,student,classmate,head_teacher",
    ),
    _topic(
        "music",
        """
        play played playing: guitar piano drum violin song gig bass
        hear heard hearing: song album band track lyric chorus
        write wrote writing: song lyric tune melody verse
        record recorded recording: album demo song track podcast
        see saw seeing: band concert singer orchestra gig
        sing sang singing: song solo chorus duet ~carols
        download downloaded downloading: album playlist track mix
        practise practised practising: piano guitar =jazz scale solo
        """,
        "loud,catchy,gentle,acoustic,electric,classic,slow,live,emotional,noisy,deep,perfect",
        "at_the_gig,on_the_radio,in_the_studio,on_stage,at_the_festival,in_my_headphones,at_band_practice",
        "singer,drummer,guitarist,producer,fan,band",
    ),
    _topic(
        "films",
        """
        watch watched watching: film series episode documentary trailer thriller comedy
        see saw seeing: film trailer ending sequel musical cartoon
        finish finished finishing: series season episode show
        stream streamed streaming: film series show cartoon
        recommend recommended recommending: film series director documentary book
        spoil spoiled spoiling: ending plot twist surprise
        rent rented renting: film cinema projector
        review reviewed reviewing: film sequel drama script
        """,
        "scary,funny,predictable,dramatic,romantic,overrated,violent,original,long,dull,gripping,weird",
        "at_the_cinema,on_the_sofa,on_tv,in_the_front_row,in_the_dark,on_the_big_screen",
        "actor,actress,director,villain,hero,detective",
    ),
    _topic(
        "travel",
        """
        book booked booking: flight hotel train room ~tickets cruise
        pack packed packing: suitcase bag ~shoes passport ~sunglasses camera
        miss missed missing: flight train connection bus ferry
        visit visited visiting: museum castle island temple beach =paris =spain
        explore explored exploring: city island market coast village
        rent rented renting: car bike cabin boat apartment
        cancel cancelled cancelling: flight trip hotel booking
        change changed changing: ~money flight room seat date
        """,
        "sunny,crowded,expensive,cheap,beautiful,foreign,ancient,tropical,direct,delayed,exotic,remote",
        "at_the_airport,on_the_beach,in_the_mountains,by_the_pool,at_the_border,in_rome,on_the_ferry,abroad",
        "pilot,guide,driver,tourist,passenger,local",
    ),
    _topic(
        "fitness",
        """
        run ran running: marathon mile lap race =uphill
        lift lifted lifting: ~weights bar more
        join joined joining: gym class club team
        stretch stretched stretching: leg back shoulder muscle
        track tracked tracking: ~calories ~steps sleep heart_rate
        skip skipped skipping: workout session =breakfast gym
        hurt hurt hurting: knee ankle back shoulder wrist
        do did doing: =yoga workout ~squats push_up plank
        """,
        "sore,fit,strong,exhausted,healthy,weak,flexible,sweaty,intense,slim,steady,painful",
        "at_the_gym,in_the_park,on_the_treadmill,round_the_lake,in_the_pool,on_the_track",
        "trainer,coach,runner,instructor,physio",
    ),
    _topic(
        "kids",
        """
        pick_up picked_up picking_up: ~kids baby ~twins toy ~crayons
        feed fed feeding: baby ~kids toddler
        change changed changing: nappy sheet outfit
        plan planned planning: birthday party playdate picnic
        read read reading: story bedtime_story book letter
        lose lost losing: toy shoe tooth lunchbox jumper
        build built building: tower castle den puzzle lego
        wash washed washing: uniform ~clothes bottle blanket
        """,
        "cute,cheeky,sleepy,grumpy,messy,noisy,adorable,naughty,tiny,hungry,proud,clingy",
        "at_nursery,at_the_playground,in_the_bath,at_swimming,in_the_back_seat,at_the_party,at_the_school_gate",
        "baby,toddler,nanny,babysitter,daughter,son,teacher",
    ),
    _topic(
        "pets",
        """
        walk walked walking: dog puppy
        feed fed feeding: cat rabbit dog hamster ~chickens
        adopt adopted adopting: kitten puppy dog rescue
        train trained training: puppy dog parrot
        brush brushed brushing: cat coat dog tail
        chase chased chasing: ball squirrel cat stick bird
        chew chewed chewing: shoe sofa bone slipper cable
        clean cleaned cleaning: cage tank litter_tray basket
        """,
        "fluffy,playful,muddy,wet,gentle,stubborn,furry,loyal,lazy,curious,scared,smelly",
        "at_the_vet,in_the_garden,on_the_lead,under_the_bed,in_the_woods,on_my_lap,in_the_basket",
        "vet,breeder,dog_walker,neighbour",
    ),
    _topic(
        "gaming",
        """
        play played playing: level game campaign map round match
        beat beat beating: boss level record dragon score
        download downloaded downloading: patch game mod demo update
        unlock unlocked unlocking: skin weapon character achievement door
        buy bought buying: console controller headset keyboard skin
        join joined joining: server guild party lobby squad
        restart restarted restarting: router console level server
        stream streamed streaming: game tournament match
        """,
        "epic,laggy,broken,rare,hard,addictive,legendary,toxic,competitive,virtual,online,glitchy",
        "on_the_server,in_the_lobby,on_my_console,in_ranked,on_discord,in_the_last_level",
        "boss,sniper,healer,noob,streamer,squad",
    ),
    _topic(
        "garden",
        """
        plant planted planting: tree ~roses ~tulips ~seeds hedge ~herbs
        water watered watering: lawn ~plants ~tomatoes =everything
        cut cut cutting: grass hedge branch ~flowers
        pick picked picking: ~apples ~strawberries ~flowers ~beans
        dig dug digging: hole pond trench bed
        grow grew growing: ~peppers ~carrots pumpkin ~sunflowers ~potatoes
        paint painted painting: fence shed gate bench
        clear cleared clearing: ~leaves ~weeds path gutter
        """,
        "green,wild,overgrown,dry,colourful,shady,ripe,dead,tidy,tall,frosty,damp",
        "in_the_garden,on_the_allotment,in_the_greenhouse,by_the_shed,on_the_balcony,under_the_tree",
        "gardener,neighbour",
    ),
    _topic(
        "house",
        """
        fix fixed fixing: tap boiler door washing_machine roof light
        paint painted painting: wall bedroom ceiling kitchen hallway
        clean cleaned cleaning: bathroom window carpet fridge oven floor
        move moved moving: sofa wardrobe bed ~boxes table
        pay paid paying: rent bill deposit plumber mortgage
        build built building: shelf extension wardrobe cupboard
        lose lost losing: key screwdriver remote drill
        sell sold selling: house flat sofa mirror lamp
        """,
        "leaky,broken,spacious,cosy,dusty,cold,draughty,modern,filthy,wooden,bare,damp",
        "upstairs,in_the_loft,in_the_basement,next_door,in_the_spare_room,in_the_garage,on_the_landing",
        "plumber,landlord,builder,electrician,neighbour,flatmate",
    ),
    _topic(
        "cars",
        """
        drive drove driving: van truck car =home lorry
        park parked parking: car van motorbike
        fix fixed fixing: engine brake clutch exhaust tyre
        wash washed washing: car windscreen van
        sell sold selling: car motorbike caravan
        fail failed failing: =inspection test
        fill filled filling: tank tyre form
        scratch scratched scratching: door bumper paint
        """,
        "rusty,shiny,electric,reliable,slow,dented,automatic,faulty,used,noisy,flat,economical",
        "on_the_motorway,at_the_garage,in_the_car_park,at_the_lights,on_the_drive,in_traffic,at_the_petrol_station",
        "mechanic,dealer,driver,instructor,traffic_warden",
    ),
    _topic(
        "shopping",
        """
        buy bought buying: dress jacket coat pair_of_jeans bag watch scarf
        return returned returning: jacket dress parcel ~boots
        order ordered ordering: dress lamp present phone_case rug
        try_on tried_on trying_on: dress suit ~boots hat skirt
        wear wore wearing: suit dress jumper tie hat
        need needed needing: coat belt bag haircut present
        choose chose choosing: colour size ring present style
        save saved saving: ~money receipt voucher
        """,
        "cheap,stylish,tight,loose,smart,pretty,expensive,trendy,casual,elegant,baggy,red",
        "in_the_sale,at_the_mall,in_town,online,at_the_till,in_the_window,on_the_high_street",
        "cashier,assistant,designer,stylist",
    ),
    _topic(
        "health",
        """
        see saw seeing: doctor dentist nurse specialist
        book booked booking: appointment scan check_up
        take took taking: tablet ~vitamins medicine day_off painkiller
        catch caught catching: cold flu bug
        hurt hurt hurting: back tooth neck foot
        need needed needing: rest prescription sleep injection operation
        break broke breaking: arm leg tooth habit
        cancel cancelled cancelling: appointment operation
        """,
        "ill,better,dizzy,feverish,swollen,painful,sick,contagious,allergic,weak,stiff,serious",
        "at_the_doctor's,in_hospital,at_the_dentist,in_bed,in_the_waiting_room,at_the_pharmacy",
        "doctor,nurse,dentist,surgeon,patient,pharmacist",
    ),
    _topic(
        "party",
        """
        throw threw throwing: party barbecue
        bring brought bringing: wine beer ~snacks cake guitar ~balloons
        invite invited inviting: =everyone ~neighbours cousin dj
        drink drank drinking: wine beer cocktail ~shots coffee
        plan planned planning: party wedding surprise night_out
        open opened opening: present bottle card
        dance danced dancing: =salsa =all_night
        meet met meeting: ~friends bride someone =everyone
        """,
        "drunk,wild,fun,hungover,fancy,dressed_up,lively,awkward,memorable,packed,classy,legendary",
        "at_the_bar,at_the_club,on_the_dance_floor,at_the_wedding,in_the_beer_garden,at_my_place,on_the_roof",
        "bartender,bouncer,dj,bride,groom,guest",
    ),
    _topic(
        "tech",
        """
        update updated updating: phone app laptop website driver
        reset reset resetting: password router phone tablet
        charge charged charging: phone laptop battery watch
        fix fixed fixing: bug printer screen server script
        install installed installing: app program update printer
        delete deleted deleting: file photo account app
        write wrote writing: code script test app
        back_up backed_up backing_up: ~photos drive ~files
        """,
        "slow,wireless,frozen,secure,smart,outdated,fast,digital,buggy,compatible,offline,automatic",
        "on_my_laptop,in_the_cloud,on_the_server,on_wifi,in_the_settings,on_the_website,at_the_help_desk",
        "developer,admin,hacker,user,engineer",
    ),
    _topic(
        "books",
        """
        read read reading: novel biography chapter poem magazine mystery
        borrow borrowed borrowing: book novel copy audiobook
        finish finished finishing: novel chapter trilogy book
        write wrote writing: novel story poem diary blog
        lend lent lending: copy book magazine
        join joined joining: book_club library workshop
        review reviewed reviewing: novel draft manuscript
        quote quoted quoting: line page poet
        """,
        "thrilling,depressing,clever,moving,dense,poetic,slow,fascinating,dark,witty,honest,brilliant",
        "at_the_library,in_bed,at_book_club,on_the_train,in_the_last_chapter,by_the_fire,in_the_bookshop",
        "author,narrator,poet,editor,librarian",
    ),
    _topic(
        "money",
        """
        pay paid paying: bill tax fee loan fine
        save saved saving: ~money deposit bonus penny
        lend lent lending: ~money cash tenner
        transfer transferred transferring: ~money deposit rent
        check checked checking: balance statement account budget
        spend spent spending: ~money bonus fortune
        owe owed owing: favour ~money pint
        close closed closing: account deal card
        """,
        "broke,rich,skint,expensive,generous,careful,worth_it,overpriced,fair,stingy,secure,risky",
        "at_the_bank,in_my_account,on_my_card,in_savings,at_the_cash_machine,in_cash",
        "banker,accountant,landlord,investor,tax_man",
    ),
    _topic(
        "weather",
        """
        bring brought bringing: umbrella coat ~gloves sunscreen
        watch watched watching: storm forecast sunset ~clouds snow
        clear cleared clearing: snow path ~branches ice
        love loved loving: rain sunshine snow autumn spring
        hate hated hating: rain wind winter fog cold
        dry dried drying: washing coat hair ~socks
        shut shut shutting: window door curtain
        light lit lighting: fire barbecue candle
        """,
        "windy,freezing,warm,cloudy,grey,icy,stormy,boiling,foggy,mild,wet,bright",
        "outside,on_the_coast,up_north,in_the_rain,down_south,in_the_sun,in_the_hills",
        "forecaster,neighbour",
    ),
    _topic(
        "art",
        """
        paint painted painting: portrait landscape wall picture
        draw drew drawing: sketch cartoon map face
        take took taking: photo class picture
        knit knitted knitting: scarf jumper blanket hat
        visit visited visiting: gallery exhibition museum studio
        frame framed framing: print photo poster
        sell sold selling: painting print sculpture
        learn learned learning: =pottery technique =photography =design
        """,
        "abstract,bright,colourful,creative,delicate,ugly,original,vintage,black_and_white,detailed,bold,blurry",
        "in_the_studio,at_the_gallery,in_art_class,on_canvas,at_the_exhibition,on_the_wall",
        "artist,photographer,sculptor,model,painter",
    ),
    _topic(
        "church",
        """
        sing sang singing: hymn =alto psalm
        attend attended attending: service funeral christening wedding mass
        read read reading: passage verse bible
        raise raised raising: ~money ~funds roof
        visit visited visiting: hospital chapel family charity
        help helped helping: charity family ~neighbours community
        run ran running: stall choir group shelter
        light lit lighting: candle
        """,
        "grateful,peaceful,holy,kind,blessed,humble,faithful,traditional,quiet,thankful,generous,old",
        "at_church,in_the_choir,at_the_food_bank,in_the_village_hall,at_the_service,in_the_front_pew",
        "priest,minister,vicar,choir,volunteer,organist",
    ),
    _topic(
        "dating",
        """
        meet met meeting: guy girl =someone match
        text texted texting: guy girl ex =him =her
        ignore ignored ignoring: message call text ex
        kiss kissed kissing: guy girl =him =her
        plan planned planning: date dinner weekend_away
        delete deleted deleting: app number profile photo
        miss missed missing: ex =him =her call
        like liked liking: photo profile smile guy
        """,
        "single,shy,handsome,jealous,sweet,hot,serious,clingy,romantic,awkward,charming,taken",
        "on_a_date,on_that_app,at_the_bar,at_his_place,at_her_place,over_coffee",
        "girlfriend,boyfriend,ex,crush,stranger",
    ),
    _topic(
        "cycling",
        """
        ride rode riding: bike trail =home hill loop
        fix fixed fixing: chain wheel puncture brake saddle
        climb climbed climbing: hill mountain pass
        race raced racing: =friends stage
        buy bought buying: helmet bike ~lights lock
        follow followed following: route river path map
        clean cleaned cleaning: chain frame bike
        lock locked locking: bike wheel shed
        """,
        "steep,muddy,flat,light,fast,carbon,bumpy,scenic,tired,soaked,uphill,sore",
        "on_the_trail,up_the_hill,along_the_canal,on_the_road,in_the_saddle,through_the_forest",
        "rider,racer,mechanic,club",
    ),
    _topic(
        "news",
        """
        read read reading: article headline paper column
        vote voted voting: =labour =green =early
        watch watched watching: debate speech news interview
        share shared sharing: article post link rumour
        sign signed signing: petition letter
        join joined joining: union protest march party
        discuss discussed discussing: election law tax policy
        trust trusted trusting: government media paper president
        """,
        "political,fake,shocking,corrupt,liberal,conservative,public,global,historic,biased,local,honest",
        "on_the_news,in_parliament,on_twitter,in_the_paper,at_the_protest,in_the_capital",
        "president,minister,reporter,mayor,senator,voter",
    ),
)
